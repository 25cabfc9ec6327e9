// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "nn/gradient_record.h"
#include "nn/row_source.h"

namespace memlayers::nn {

struct HeldTable {
  at::Tensor values;  // the pool's parameter [slots, width], float32 or bfloat16
  // Whether rows lie in the pool's scratch file: those of the next tokens are then read ahead.
  std::function<bool(const at::Tensor& rows)> is_in_file;
  std::shared_ptr<GradientRecord> record;
  OnRead on_read;
};

// The rows of one process that holds all of them, to be read and trained.
std::unique_ptr<RowSource> held_rows(HeldTable table);

}  // namespace memlayers::nn

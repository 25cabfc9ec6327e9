// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "nn/gradient_record.h"
#include "nn/pool_exchange.h"
#include "nn/row_source.h"

namespace memlayers::nn {

struct ShardedTable {
  at::Tensor values;  // the pool's parameter: this process's part
  std::shared_ptr<PoolExchange> exchange;
  std::int64_t slots, width, u_width;  // of the whole pool
  std::function<bool(const at::Tensor& rows)> is_in_file;
  std::shared_ptr<GradientRecord> record;
  // What to call with the rows of this part that the tokens of any process read, for one call of
  // gather.
  std::function<OnRead()> on_read;
};

// The rows that a memory group holds together. Every process makes the same calls.
std::unique_ptr<RowSource> sharded_rows(ShardedTable table);

}  // namespace memlayers::nn

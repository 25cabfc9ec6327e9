// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

#include "train/fact_batch.h"

namespace memlayers::edit {

// What a part of a model that does not change makes of sequences: computed when a sequence first
// comes, and kept in memory as long as there is room for it.
class KeptStates {
 public:
  using Compute = std::function<at::Tensor(const train::Batch& batch)>;  // [1, T, dim] of its input
  // Beyond `most_bytes` what comes is computed each time.
  explicit KeptStates(Compute compute, std::int64_t most_bytes = std::int64_t{4} << 30);

  // [1, T, dim] of the batch's input; without gradient.
  at::Tensor of(const train::Batch& batch);
  std::int64_t bytes() const { return bytes_; }  // that are kept

 private:
  at::Tensor keep(const at::Tensor& own);  // [T, dim], copied

  Compute compute_;
  std::int64_t most_bytes_, bytes_ = 0;
  at::Tensor slab_;  // [tokens, dim]: what is kept next lies in it
  std::int64_t used_ = 0;
  std::unordered_map<const train::FactRow*, at::Tensor> kept_;  // [T, dim]
};

}  // namespace memlayers::edit

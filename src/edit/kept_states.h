// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

#include "edit/batch.h"

namespace memlayers::edit {

// What a part of a model that does not change makes of sequences: computed when a sequence first
// comes, and kept in memory as long as there is room for it.
class KeptStates {
 public:
  using Compute = std::function<at::Tensor(const at::Tensor& tokens)>;  // [B, T] -> [B, T, dim]
  // Beyond `most_bytes` what comes is computed each time.
  explicit KeptStates(Compute compute, std::int64_t most_bytes = std::int64_t{4} << 30);

  // [B, T, dim] for the batch's input, zeros where that is padded; without gradient.
  at::Tensor of(const Batch& batch);
  std::int64_t bytes() const { return bytes_; }  // that are kept

 private:
  Compute compute_;
  std::int64_t most_bytes_, bytes_ = 0;
  std::unordered_map<const train::FactRow*, at::Tensor> kept_;  // [T, dim]
};

}  // namespace memlayers::edit

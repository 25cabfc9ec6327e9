// SPDX-License-Identifier: Apache-2.0
// The matrix products of a memory layer, as torch does them alone, into memory that is there.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "bench/figures.h"
#include "memlayers/config.h"
#include "memlayers/memory_layer.h"

namespace memlayers::bench {

// The scores of all sub-keys in float32, the yardstick of lookups: ours does better where it
// screens them in 8 bits (src/ops/lookup/screened_lookup.h). Three ways, for which is fastest
// depends on the sizes.
class ScoreProducts {
 public:
  ScoreProducts(std::int64_t tokens, const MemoryConfig& memory);
  // Times each way once: query [tokens, H, k_dim], keys [H, 2, n_keys, k_dim / 2]. Not kept where
  // is_kept is false.
  void measure(const at::Tensor& query, const at::Tensor& keys, bool is_kept);
  // Of the fastest way.
  const Times& fastest() const;
  // Operations of one time; a multiply-add is two.
  double operations() const;

 private:
  void batched(const at::Tensor& halves, const at::Tensor& keys);
  void one_by_one(const at::Tensor& halves, const at::Tensor& keys);
  void in_blocks(const at::Tensor& halves, const at::Tensor& keys);

  static constexpr std::int64_t kBlock = 64;
  at::Tensor scores_, blocks_;
  double operations_;
  std::array<Times, 3> times_;
};

// A training step's products with the weights of a layer's linear parts: forward, and the gradients
// of input and weight, in the type of the weights or in float32, whichever the first measure()
// finds faster (torch multiplies bfloat16 numbers one by one where the processor has no
// instruction).
class LinearProducts {
 public:
  LinearProducts(const MemoryLayer& layer, std::int64_t tokens);
  void measure(bool is_kept);  // times all of them once, on other numbers
  const Times& times() const { return times_; }

 private:
  struct Part {
    at::Tensor weight, y, grad_x, grad_weight;
  };
  double seconds_of_all(std::vector<Part>& parts) const;

  std::int64_t tokens_;
  std::vector<std::vector<Part>> ways_;  // one after the first measure()
  Times times_;
};

}  // namespace memlayers::bench

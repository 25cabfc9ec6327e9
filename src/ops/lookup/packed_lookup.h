// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/quantized.h"
#include "memlayers/ops.h"
#include "ops/lookup/best_cells.h"

namespace memlayers::ops {

// Lookups of one query at a time through sub-keys of 8 bits (PackedKeys), exact all the same. One
// instance a thread; the keys must outlive it.
class PackedLookup {
 public:
  PackedLookup(const PackedKeys& packed, std::int64_t knn);

  // The slots (k) of a query (d) of a head and their softmax weights (k).
  void run(std::int64_t head, const float* query, float* weights, std::int64_t* slots);

 private:
  // The scores of set number `set` of [H * 2] for one query half, those that could be among the
  // best k by index, and exactly: best (k) and index (k).
  void find(std::int64_t set, const float* query, float* best, std::int32_t* index);
  // Fills low_ and high_, bounds of the scores: |q.k - q'.k'| <= |q| |k - k'| + |q - q'| |k'|.
  void bound_scores(std::int64_t first, const float* query, float norm);
  // Fills packed_query_ and query_error_; returns the unit of the 8-bit numbers.
  float pack(const float* query);

  const PackedKeys& packed_;
  std::int64_t n_, half_, knn_;
  BestCells cells_;
  std::vector<kernels::Int8> row_;
  std::vector<float> difference_;
  std::vector<std::int8_t> packed_query_;
  float query_error_ = 0;
  std::vector<std::int32_t> products_;
  std::vector<std::int64_t> candidates_;
  std::vector<float> low_, high_, scores_, best_;
  std::vector<std::int32_t> index_;
  std::vector<float> set_best_;          // [2, k]
  std::vector<std::int32_t> set_index_;  // the same
};

}  // namespace memlayers::ops

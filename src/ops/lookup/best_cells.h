// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace memlayers::ops {

// The best k cells of a grid from the scores of its row and column sub-keys. One instance a thread.
class BestCells {
 public:
  BestCells(std::int64_t n_keys, std::int64_t knn)
      : knn_(knn),
        plan_(kernels::combine_plan(knn)),
        scratch_(std::max(kernels::top_k_scratch_bytes(n_keys, knn),
                          kernels::combine_scratch_bytes(knn)) +
                 kLine) {}

  // The best k of scores (count), of one set: best (k) and index (k).
  void select(const float* scores, std::int64_t count, float* best, std::int32_t* index) {
    kernels::active().top_k(scores, count, knn_, best, index, scratch());
  }
  // The best k sums of two such lists: scores (k) and slots (k).
  void combine(const float* row_best, const std::int32_t* row_index, const float* col_best,
               const std::int32_t* col_index, float* scores, std::int64_t* slots) {
    kernels::active().combine(row_best, row_index, col_best, col_index, knn_, plan_.data(), scores,
                              slots, scratch());
  }

 private:
  static constexpr std::size_t kLine = 64;
  void* scratch() {
    const auto address = reinterpret_cast<std::uintptr_t>(scratch_.data());
    return scratch_.data() + (kLine - address % kLine) % kLine;
  }

  std::int64_t knn_;
  std::vector<std::uint32_t> plan_;
  std::vector<std::byte> scratch_;
};

}  // namespace memlayers::ops

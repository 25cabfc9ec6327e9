// SPDX-License-Identifier: Apache-2.0
// Sums of a grouped gradient, one row at a time: what the update, the norm and the dense gradient
// share.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memlayers/row_updates.h"
#include "ops/parallel.h"
#include "ops/prefetch.h"

namespace memlayers::ops {

// The gradient of a row: weight * numbers, (width).
struct RowGradient {
  const float* numbers;
  float weight;
};

// Of its columns [first, last), in float64.
double squared_norm(const RowGradient& gradient, std::int64_t first, std::int64_t last);

// Reads one touched row's gradient. One instance a thread; the GroupedGradient must outlive it.
class RowSum {
 public:
  RowSum(const GroupedGradient& gradient, std::int64_t width);
  // The gradient of slots[u]; valid until the next call. Most rows have one entry: its token's
  // numbers are not copied. Several are summed part after part in the order in which they came.
  RowGradient compute(std::int64_t u);
  // Asks for the first entry of a gradient that will be computed soon.
  void prefetch(std::int64_t u) const;

 private:
  struct Part {
    const float* weights;
    const float* rows;
    std::int64_t first_entry, slots_a_token, row_width, first_column;
  };
  const Part& part_of(std::int64_t entry) const;

  const std::int64_t* begin_;
  const std::int64_t* entries_;
  std::vector<Part> parts_;
  std::vector<float> sum_, weights_;
  std::vector<std::int64_t> tokens_;
};

// Throws ValueError where a part has columns beyond `width`: it was grouped for wider rows.
void check_columns(const GroupedGradient& gradient, std::int64_t width);

// f(u, RowGradient of slots[u]) for every touched row, in threads.
template <class F>
void for_each_row(const GroupedGradient& gradient, std::int64_t width, const F& f) {
  check_columns(gradient, width);
  const std::int64_t rows = gradient.slots.numel();
  const std::int64_t entries_a_row = rows == 0 ? 0 : gradient.entries.numel() / rows + 1;
  parallel_ranges(rows, width * entries_a_row, [&](std::int64_t begin, std::int64_t end) {
    RowSum sum(gradient, width);
    for (std::int64_t u = begin; u < end; ++u) {
      if (u + 1 < end) sum.prefetch(u + 1);
      f(u, sum.compute(u));
    }
  });
}

// The squared norms of columns [begins[b], begins[b + 1]) of all rows, in float64; begins:
// ascending from 0 to the width. A block's bits are those that it has without the other columns.
std::vector<double> block_squares(const GroupedGradient& gradient,
                                  std::span<const std::int64_t> begins);

// The gradient as a tensor of values' shape and type: dense, or sparse COO, coalesced.
at::Tensor materialise(const GroupedGradient& gradient, const at::Tensor& values, bool sparse);

}  // namespace memlayers::ops

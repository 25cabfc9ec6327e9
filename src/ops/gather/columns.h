// SPDX-License-Identifier: Apache-2.0
// gather and the dots of its backward over some columns of the rows: what a process does whose part
// of the pool is a slice of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace memlayers::ops {

struct ColumnRange {
  std::int64_t first, width;
};

// values [S, W] float32 or bfloat16, contiguous on the CPU; slots [T, J] int64.
//
// out[t] = sum_j weights[t, j] * values[slots[t, j], range]; weights [T, J]. Returns [T,
// range.width] float32: the bits that gather() gives for these columns.
at::Tensor gather_columns(const at::Tensor& values, const at::Tensor& slots,
                          const at::Tensor& weights, ColumnRange range);
// out[t, n, j] = sum over c < ranges[n].width of x[t, ranges[n].first + c] * values[slots[t, j],
// first_column + ranges[n].first + c]; x [T, w] float32. Returns [T, N, J] float32.
at::Tensor dot_columns(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& x,
                       std::int64_t first_column, std::span<const ColumnRange> ranges);

}  // namespace memlayers::ops

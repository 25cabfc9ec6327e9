// SPDX-License-Identifier: Apache-2.0
#include "ops/gather/columns.h"

#include <ATen/ops/empty.h>

#include "ops/gather/row_dispatch.h"
#include "ops/parallel.h"
#include "ops/torch/check.h"

namespace memlayers::ops {

at::Tensor gather_columns(const at::Tensor& values, const at::Tensor& slots_in,
                          const at::Tensor& weights_in, ColumnRange range) {
  check_cpu("gather_columns", {{"values", values}});
  check_gather("gather_columns", values, slots_in, weights_in);
  const at::Tensor slots = slots_in.contiguous(), weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), w = range.width;
  check_slots("gather_columns", slots, values.size(0));
  at::Tensor out = at::empty({T, w}, weights.options());
  const StoredRows stored = stored_rows(values);
  dispatch_rows(stored, range.first, w,
                [&]<class Row>(const Row* rows, const kernels::RowSpan& span) {
                  const auto& kernel = kernels::active().rows<Row>();
                  parallel_ranges(T, J * w, [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t t = begin; t < end; ++t) {
                      kernel.gather(rows, span, slots.const_data_ptr<std::int64_t>() + t * J,
                                    weights.const_data_ptr<float>() + t * J, J, t + 1 < end ? J : 0,
                                    out.mutable_data_ptr<float>() + t * w);
                    }
                  });
                });
  return out;
}

at::Tensor dot_columns(const at::Tensor& values, const at::Tensor& slots_in, const at::Tensor& x_in,
                       std::int64_t first_column, std::span<const ColumnRange> ranges) {
  check_cpu("dot_columns", {{"values", values}, {"slots", slots_in}, {"x", x_in}});
  check_type("dot_columns", "values", values, {at::kFloat, at::kBFloat16});
  const at::Tensor slots = slots_in.contiguous(), x = x_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), W = values.size(1), w = x.size(1);
  const auto N = static_cast<std::int64_t>(ranges.size());
  check_grad("dot_columns", x, T, w);
  check_slots("dot_columns", slots, values.size(0));
  at::Tensor out = at::empty({T, N, J}, x.options());
  const StoredRows stored = stored_rows(values);
  dispatch_rows(stored, 0, W, [&]<class Row>(const Row* rows, const kernels::RowSpan& whole) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * w, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t n = 0; n < N; ++n) {
          const auto& [first, width] = ranges[n];
          kernel.dots(rows, {whole.stride, W, first_column + first, width},
                      slots.const_data_ptr<std::int64_t>() + t * J, J, t + 1 < end ? J : 0,
                      x.const_data_ptr<float>() + t * w + first,
                      out.mutable_data_ptr<float>() + (t * N + n) * J);
        }
      }
    });
  });
  return out;
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "memlayers/row_updates.h"
#include "ops/gather/row_dispatch.h"
#include "ops/gather/snapshot_rows.h"
#include "ops/prefetch.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"
#include "ops/update/row_sums.h"

namespace memlayers::ops::cpu {
namespace {

// Columns of a row that are worth a thread of their own; whole blocks of int4.
constexpr std::int64_t kPart = 4 * kernels::kInt4Block;

// ids [T, J]: rows of `values`, checked.
at::Tensor sum_rows(const RowsView& values, const at::Tensor& ids, const at::Tensor& weights) {
  const std::int64_t T = ids.size(0), J = ids.size(1), W = values.width;
  at::Tensor out = at::empty({T, W}, weights.options());
  dispatch_rows(values, 0, W, [&]<class Row>(const Row* rows, const kernels::RowSpan& span) {
    const auto& kernel = kernels::active().rows<Row>();
    const auto* id = ids.const_data_ptr<std::int64_t>();
    const auto* weight = weights.const_data_ptr<float>();
    auto* sum = out.mutable_data_ptr<float>();
    // With fewer tokens than threads, threads share a token's columns: their sums know nothing of
    // each other.
    const bool are_few = T < at::get_num_threads();
    const std::int64_t parts = are_few ? std::max<std::int64_t>(1, (W + kPart - 1) / kPart) : 1;
    parallel_reads(T * parts, J * W / parts, [=, &kernel](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end;) {
        const std::int64_t t = i / parts, first = i % parts * kPart;
        const std::int64_t here = std::min(end - i, parts - i % parts);  // parts, side by side
        kernels::RowSpan columns = span;
        columns.first = first;
        columns.width = parts == 1 ? W : std::min(W - first, here * kPart);
        i += here;
        // The next token's sums too: the first pass over its rows would else wait for every line.
        if (parts == 1 && t + 1 < end) prefetch(sum + (t + 1) * W, W * std::int64_t{sizeof(float)});
        kernel.gather(rows, columns, id + t * J, weight + t * J, J,
                      parts == 1 && t + 1 < end ? J : 0, sum + t * W + first);
      }
    });
  });
  return out;
}

at::Tensor gather_stored(const StoredRows& values, const at::Tensor& slots_in,
                         const at::Tensor& weights) {
  const at::Tensor slots = slots_in.contiguous();
  check_slots("gather", slots, values.data.size(0));
  return sum_rows(view(values), slots, weights.contiguous());
}

at::Tensor backward_weights(const char* op, const at::Tensor& grad_in, const StoredRows& values,
                            const at::Tensor& slots_in) {
  const at::Tensor grad = grad_in.contiguous(), slots = slots_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), W = values.width;
  check_slots(op, slots, values.data.size(0));
  at::Tensor out = at::empty({T, J}, grad.options());
  dispatch_rows(values, 0, W, [&]<class Row>(const Row* rows, const kernels::RowSpan& span) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        kernel.dots(rows, span, slots.const_data_ptr<std::int64_t>() + t * J, J,
                    t + 1 < end ? J : 0, grad.const_data_ptr<float>() + t * W,
                    out.mutable_data_ptr<float>() + t * J);
      }
    });
  });
  return out;
}

}  // namespace

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool /*sparse_grad*/) {
  return gather_stored(stored_rows(values), slots, weights);
}

at::Tensor gather_backward_weights(const at::Tensor& grad, const at::Tensor& values,
                                   const at::Tensor& slots) {
  return backward_weights("gather_backward_weights", grad, stored_rows(values), slots);
}

at::Tensor gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                  const at::Tensor& slots, const at::Tensor& weights,
                                  bool sparse_grad) {
  const GroupedGradient grouped =
      memlayers::group({{slots, weights, grad}}, values.size(0), values.size(1));
  return materialise(grouped, values, sparse_grad);
}

at::Tensor gather_quantized(const at::Tensor& rows, const at::Tensor& slots,
                            const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  return gather_stored({rows.contiguous(), type_of_bits(bits), width}, slots, weights);
}

at::Tensor gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor& rows,
                                             const at::Tensor& slots, std::int64_t bits,
                                             std::int64_t width) {
  return backward_weights("gather_quantized_backward_weights", grad,
                          {rows.contiguous(), type_of_bits(bits), width}, slots);
}

}  // namespace memlayers::ops::cpu

namespace memlayers {

at::Tensor gather(const Snapshot& rows, const at::Tensor& slots, const at::Tensor& weights) {
  const ops::FoundRows found = ops::find_rows("gather", rows, slots, weights);
  return ops::cpu::sum_rows(found.rows, found.ids, weights.contiguous());
}

}  // namespace memlayers

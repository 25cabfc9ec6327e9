// SPDX-License-Identifier: Apache-2.0
// PEER on the CPU: a row is read once for both of its halves, U then V, while it is in the cache.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "memlayers/row_updates.h"
#include "ops/gather/gelu.h"
#include "ops/gather/row_dispatch.h"
#include "ops/gather/snapshot_rows.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"
#include "ops/update/row_sums.h"

namespace memlayers::ops::cpu {
namespace {

// Rows go through both of their halves eight at a time: U is read, then V while U's products are
// still at hand; the rows after them are on their way meanwhile.
constexpr std::int64_t kRowsAtOnce = 8;

// ids [T, J]: rows of `values`, checked.
at::Tensor forward(const RowsView& values, const at::Tensor& x_in, const at::Tensor& slots,
                   const at::Tensor& weights_in) {
  const at::Tensor x = x_in.contiguous(), weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), D = x.size(1), W = values.width;
  at::Tensor out = at::empty({T, W - D}, x.options());
  dispatch_rows(values, 0, D, [&]<class Row>(const Row* rows, const kernels::RowSpan& u_span) {
    const auto& kernel = kernels::active().rows<Row>();
    const kernels::RowSpan v_span{u_span.stride, W, D, W - D};
    const auto* slot = slots.const_data_ptr<std::int64_t>();
    const auto* all_weights = weights.const_data_ptr<float>();
    const auto* all_x = x.const_data_ptr<float>();
    auto* sums = out.mutable_data_ptr<float>();
    parallel_reads(T, J * W, [=, &kernel](std::int64_t begin, std::int64_t end) {
      float factors[kRowsAtOnce];
      for (std::int64_t t = begin; t < end; ++t) {
        float* sum = sums + t * (W - D);
        std::fill(sum, sum + W - D, 0.0F);
        for (std::int64_t j = 0; j < J; j += kRowsAtOnce) {
          const std::int64_t* ids = slot + t * J + j;
          const float* weight = all_weights + t * J + j;
          const std::int64_t count = std::min(kRowsAtOnce, J - j);
          const std::int64_t following = (end - t) * J - j - count;
          kernel.dots(rows, u_span, ids, count, following, all_x + t * D, factors);
          for (std::int64_t i = 0; i < count; ++i) factors[i] = weight[i] * gelu(factors[i]);
          kernel.gather_add(rows, v_span, ids, factors, count, following, sum);
        }
      }
    });
  });
  return out;
}

at::Tensor forward(const StoredRows& values, const at::Tensor& x, const at::Tensor& slots_in,
                   const at::Tensor& weights) {
  const at::Tensor slots = slots_in.contiguous();
  check_slots("peer_gather", slots, values.data.size(0));
  return forward(view(values), x, slots, weights);
}

// With z = x . U, g = grad . V: V's factor is w gelu(z), U's is g w gelu'(z), grad_w = g gelu(z),
// and grad_x the sum of U rows by U's factors.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const char* op, const at::Tensor& grad_in, const StoredRows& values, const at::Tensor& x_in,
    const at::Tensor& slots_in, const at::Tensor& weights_in) {
  const at::Tensor grad = grad_in.contiguous(), x = x_in.contiguous(),
                   slots = slots_in.contiguous(), weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), D = x.size(1), W = values.width;
  check_slots(op, slots, values.data.size(0));
  at::Tensor grad_x = at::zeros_like(x), grad_weights = at::empty_like(weights);
  at::Tensor u_factors = at::empty_like(weights), v_factors = at::empty_like(weights);
  dispatch_rows(values, 0, D, [&]<class Row>(const Row* rows, const kernels::RowSpan& u_span) {
    const auto& kernel = kernels::active().rows<Row>();
    const kernels::RowSpan v_span{u_span.stride, W, D, W - D};
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      float z[kRowsAtOnce], g[kRowsAtOnce];
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t j = 0; j < J; j += kRowsAtOnce) {
          const std::int64_t at = t * J + j, count = std::min(kRowsAtOnce, J - j);
          const std::int64_t following = (end - t) * J - j - count;
          const std::int64_t* ids = slots.const_data_ptr<std::int64_t>() + at;
          const float* w = weights.const_data_ptr<float>() + at;
          float* u = u_factors.mutable_data_ptr<float>() + at;
          kernel.dots(rows, u_span, ids, count, following, x.const_data_ptr<float>() + t * D, z);
          kernel.dots(rows, v_span, ids, count, following,
                      grad.const_data_ptr<float>() + t * (W - D), g);
          for (std::int64_t i = 0; i < count; ++i) {
            u[i] = g[i] * w[i] * gelu_derivative(z[i]);
            v_factors.mutable_data_ptr<float>()[at + i] = w[i] * gelu(z[i]);
            grad_weights.mutable_data_ptr<float>()[at + i] = g[i] * gelu(z[i]);
          }
          kernel.gather_add(rows, u_span, ids, u, count, 0,
                            grad_x.mutable_data_ptr<float>() + t * D);
        }
      }
    });
  });
  return {grad_x, grad_weights, u_factors, v_factors};
}

}  // namespace

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool /*sparse_grad*/) {
  return forward(stored_rows(values), x, slots, weights);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> peer_gather_backward(
    const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights) {
  return backward("peer_gather_backward", grad, stored_rows(values), x, slots, weights);
}

at::Tensor peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x,
                                 const at::Tensor& slots, const at::Tensor& weights,
                                 std::int64_t bits, std::int64_t width) {
  return forward({rows.contiguous(), type_of_bits(bits), width}, x, slots, weights);
}

std::tuple<at::Tensor, at::Tensor> peer_gather_quantized_backward(
    const at::Tensor& grad, const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  const auto all = backward("peer_gather_quantized_backward", grad,
                            {rows.contiguous(), type_of_bits(bits), width}, x, slots, weights);
  return {std::get<0>(all), std::get<1>(all)};
}

at::Tensor peer_gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                       const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& u_factors, const at::Tensor& v_factors,
                                       bool sparse_grad) {
  const GroupedGradient grouped =
      memlayers::group({{slots, u_factors, x, 0}, {slots, v_factors, grad, x.size(1)}},
                       values.size(0), values.size(1));
  return materialise(grouped, values, sparse_grad);
}

}  // namespace memlayers::ops::cpu

namespace memlayers {

at::Tensor peer_gather(const Snapshot& rows, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights) {
  const ops::FoundRows found = ops::find_rows("peer_gather", rows, slots, weights);
  ops::check_peer_x("peer_gather", x, slots, rows.width());
  if (rows.row_dtype() == RowType::kInt4) ops::check_int4_x("peer_gather", x);
  return ops::cpu::forward(found.rows, x, found.ids, weights);
}

}  // namespace memlayers

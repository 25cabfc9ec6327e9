// SPDX-License-Identifier: Apache-2.0
// PEER on the CPU: a row is read once for both of its halves, U then V, while it is in the cache.
#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/row_dispatch.h"
#include "ops/row_sums.h"

namespace memlayers::ops::cpu {
namespace {

float gelu(float z) { return 0.5F * z * (1 + std::erf(z * std::numbers::sqrt2_v<float> / 2)); }

float gelu_derivative(float z) {
  const float cdf = 0.5F * (1 + std::erf(z * std::numbers::sqrt2_v<float> / 2));
  const float density =
      std::exp(-0.5F * z * z) * std::numbers::inv_sqrtpi_v<float> / std::numbers::sqrt2_v<float>;
  return cdf + z * density;
}

}  // namespace

at::Tensor peer_gather(const at::Tensor& values_in, const at::Tensor& x_in,
                       const at::Tensor& slots_in, const at::Tensor& weights_in,
                       bool /*sparse_grad*/) {
  check_peer_gather("peer_gather", values_in, x_in, slots_in, weights_in);
  const at::Tensor values = values_in.contiguous(), x = x_in.contiguous(),
                   slots = slots_in.contiguous(), weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), D = x.size(1), W = values.size(1);
  check_slots("peer_gather", slots, values.size(0));
  at::Tensor out = at::empty({T, W - D}, x.options());
  dispatch_rows(values, [&]<class Row>(const Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> factors(J);
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t* ids = slots.const_data_ptr<std::int64_t>() + t * J;
        const float* weight = weights.const_data_ptr<float>() + t * J;
        kernel.dots(rows, W, ids, J, D, x.const_data_ptr<float>() + t * D, factors.data());
        for (std::int64_t j = 0; j < J; ++j) factors[j] = weight[j] * gelu(factors[j]);
        kernel.gather(rows + D, W, ids, factors.data(), J, W - D,
                      out.mutable_data_ptr<float>() + t * (W - D));
      }
    });
  });
  return out;
}

// With z = x . U, g = grad . V: V's factor is w gelu(z), U's is g w gelu'(z), grad_w = g gelu(z),
// and grad_x the sum of U rows by U's factors.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> peer_gather_backward(
    const at::Tensor& grad_in, const at::Tensor& values_in, const at::Tensor& x_in,
    const at::Tensor& slots_in, const at::Tensor& weights_in) {
  check_peer_gather("peer_gather_backward", values_in, x_in, slots_in, weights_in);
  const at::Tensor grad = grad_in.contiguous(), values = values_in.contiguous(),
                   x = x_in.contiguous(), slots = slots_in.contiguous(),
                   weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), D = x.size(1), W = values.size(1);
  check_grad("peer_gather_backward", grad, T, W - D);
  check_slots("peer_gather_backward", slots, values.size(0));
  at::Tensor grad_x = at::empty_like(x), grad_weights = at::empty_like(weights);
  at::Tensor u_factors = at::empty_like(weights), v_factors = at::empty_like(weights);
  dispatch_rows(values, [&]<class Row>(const Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> z(J), g(J);
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t* ids = slots.const_data_ptr<std::int64_t>() + t * J;
        const float* w = weights.const_data_ptr<float>() + t * J;
        float* u = u_factors.mutable_data_ptr<float>() + t * J;
        kernel.dots(rows, W, ids, J, D, x.const_data_ptr<float>() + t * D, z.data());
        kernel.dots(rows + D, W, ids, J, W - D, grad.const_data_ptr<float>() + t * (W - D),
                    g.data());
        for (std::int64_t j = 0; j < J; ++j) {
          u[j] = g[j] * w[j] * gelu_derivative(z[j]);
          v_factors.mutable_data_ptr<float>()[t * J + j] = w[j] * gelu(z[j]);
          grad_weights.mutable_data_ptr<float>()[t * J + j] = g[j] * gelu(z[j]);
        }
        kernel.gather(rows, W, ids, u, J, D, grad_x.mutable_data_ptr<float>() + t * D);
      }
    });
  });
  return {grad_x, grad_weights, u_factors, v_factors};
}

at::Tensor peer_gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                       const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& u_factors, const at::Tensor& v_factors,
                                       bool sparse_grad) {
  check_peer_gather("peer_gather_backward_values", values, x, slots, u_factors);
  check_type("peer_gather_backward_values", "v_factors", v_factors, {at::kFloat});
  check_same_shape("peer_gather_backward_values", "v_factors", v_factors, "slots", slots);
  check_grad("peer_gather_backward_values", grad, slots.size(0), values.size(1) - x.size(1));
  const GroupedGradient grouped =
      group({{slots, u_factors, x, 0}, {slots, v_factors, grad, x.size(1)}}, values.size(0),
            values.size(1));
  return materialise(grouped, values, sparse_grad);
}

}  // namespace memlayers::ops::cpu

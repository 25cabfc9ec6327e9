// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/row_dispatch.h"
#include "ops/row_sums.h"

namespace memlayers::ops::cpu {

at::Tensor gather(const at::Tensor& values_in, const at::Tensor& slots_in,
                  const at::Tensor& weights_in, bool /*sparse_grad*/) {
  check_gather("gather", values_in, slots_in, weights_in);
  const at::Tensor values = values_in.contiguous(), slots = slots_in.contiguous(),
                   weights = weights_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), W = values.size(1);
  check_slots("gather", slots, values.size(0));
  at::Tensor out = at::empty({T, W}, weights.options());
  dispatch_rows(values, [&]<class Row>(const Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        kernel.gather(rows, W, slots.const_data_ptr<std::int64_t>() + t * J,
                      weights.const_data_ptr<float>() + t * J, J, W,
                      out.mutable_data_ptr<float>() + t * W);
      }
    });
  });
  return out;
}

at::Tensor gather_backward_weights(const at::Tensor& grad_in, const at::Tensor& values_in,
                                   const at::Tensor& slots_in) {
  check_dim("gather_backward_weights", "values", values_in, 2);
  check_dim("gather_backward_weights", "slots", slots_in, 2);
  check_type("gather_backward_weights", "slots", slots_in, {at::kLong});
  const at::Tensor grad = grad_in.contiguous(), values = values_in.contiguous(),
                   slots = slots_in.contiguous();
  const std::int64_t T = slots.size(0), J = slots.size(1), W = values.size(1);
  check_grad("gather_backward_weights", grad, T, W);
  check_slots("gather_backward_weights", slots, values.size(0));
  at::Tensor out = at::empty({T, J}, grad.options());
  dispatch_rows(values, [&]<class Row>(const Row* rows) {
    const auto& kernel = kernels::active().rows<Row>();
    parallel_ranges(T, J * W, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        kernel.dots(rows, W, slots.const_data_ptr<std::int64_t>() + t * J, J, W,
                    grad.const_data_ptr<float>() + t * W, out.mutable_data_ptr<float>() + t * J);
      }
    });
  });
  return out;
}

at::Tensor gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                  const at::Tensor& slots, const at::Tensor& weights,
                                  bool sparse_grad) {
  check_gather("gather_backward_values", values, slots, weights);
  check_grad("gather_backward_values", grad, slots.size(0), values.size(1));
  const GroupedGradient grouped = group({{slots, weights, grad}}, values.size(0), values.size(1));
  return materialise(grouped, values, sparse_grad);
}

}  // namespace memlayers::ops::cpu

// SPDX-License-Identifier: Apache-2.0
#include "nn/float32_product.h"

#include <torch/types.h>

namespace memlayers::nn {

bool has_bfloat16_products() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bw") != 0 &&
                          __builtin_cpu_supports("avx512vl") != 0 &&
                          __builtin_cpu_supports("avx512dq") != 0;
  return has;
#else
  return true;
#endif
}

at::Tensor Float32Product::forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                                   const at::Tensor& weight,
                                   const std::optional<at::Tensor>& bias) {
  context->save_for_backward({x, weight});
  context->saved_data["has_bias"] = bias.has_value();
  return at::linear(x.to(at::kFloat), weight.to(at::kFloat),
                    bias ? std::optional(bias->to(at::kFloat)) : std::nullopt)
      .to(x.scalar_type());
}

torch::autograd::variable_list Float32Product::backward(torch::autograd::AutogradContext* context,
                                                        torch::autograd::variable_list grads) {
  const auto saved = context->get_saved_variables();
  const at::Tensor &x = saved[0], &weight = saved[1];
  const at::Tensor grad = grads[0].to(at::kFloat).reshape({-1, weight.size(0)});
  at::Tensor grad_x, grad_weight, grad_bias;
  if (context->needs_input_grad(0)) {
    grad_x = at::mm(grad, weight.to(at::kFloat)).to(x.scalar_type()).view(x.sizes());
  }
  if (context->needs_input_grad(1)) {
    const at::Tensor rows = x.to(at::kFloat).reshape({-1, weight.size(1)});
    grad_weight = at::mm(grad.t(), rows).to(weight.scalar_type());
  }
  if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) {
    grad_bias = grad.sum(0).to(weight.scalar_type());
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace memlayers::nn

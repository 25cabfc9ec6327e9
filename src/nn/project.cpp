// SPDX-License-Identifier: Apache-2.0
#include "nn/project.h"

#include "nn/table.h"
#include "ops/few_tokens.h"

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

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType type = x.scalar_type();
  if (!is_decoding(x) || (type != torch::kFloat && type != torch::kBFloat16) ||
      weight.scalar_type() != type) {
    const bool is_slow = x.is_cpu() && type == torch::kBFloat16 && weight.scalar_type() == type &&
                         !has_bfloat16_products();
    if (!is_slow) return torch::linear(x, weight, bias);
    return Float32Product::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  }
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return ops::linear_of_few_tokens(x.reshape({-1, x.size(-1)}), {weight, bias}).view(sizes);
}

at::Tensor in_huge_pages(const at::Tensor& tensor) {
  at::Tensor copy = make_table(tensor.sizes(), tensor.scalar_type(), std::nullopt).tensor;
  return copy.copy_(tensor);
}

void to_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters) {
  const torch::NoGradGuard no_grad;
  constexpr std::int64_t kAligned = 64;
  const auto place_of = [](const at::Tensor& parameter) {
    return (static_cast<std::int64_t>(parameter.nbytes()) + kAligned - 1) / kAligned * kAligned;
  };
  std::int64_t bytes = 0;
  for (const auto& [name, parameter] : parameters) bytes += place_of(parameter);
  const at::Tensor table = make_table({bytes}, at::kByte, std::nullopt).tensor;
  std::int64_t at = 0;
  for (auto& [name, parameter] : parameters) {
    at::Tensor moved = table.narrow(0, at, static_cast<std::int64_t>(parameter.nbytes()))
                           .view(parameter.scalar_type())
                           .view(parameter.sizes());
    moved.copy_(parameter);
    at += place_of(parameter);
    parameter.set_data(moved);
  }
}

}  // namespace memlayers::nn

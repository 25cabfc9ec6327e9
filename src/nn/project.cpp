// SPDX-License-Identifier: Apache-2.0
#include "nn/project.h"

#include "nn/table.h"
#include "ops/few_tokens.h"

namespace memlayers::nn {

at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType type = x.scalar_type();
  if (!is_decoding(x) || (type != torch::kFloat && type != torch::kBFloat16) ||
      weight.scalar_type() != type) {
    return torch::linear(x, weight, bias);
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

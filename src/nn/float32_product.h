// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace memlayers::nn {

// Whether torch has a fast product of bfloat16 numbers on this processor: oneDNN's wants AVX-512 of
// an x86, and torch's own, where it says no, takes them one by one.
bool has_bfloat16_products();

// x W^T + b of bfloat16 tensors by products in float32, rounded once, as oneDNN's are
// (docs/performance.md, "bfloat16 products"). Keeps for backward what torch::linear keeps.
struct Float32Product : torch::autograd::Function<Float32Product> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias);
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads);
};

}  // namespace memlayers::nn

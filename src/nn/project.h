// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/modules/linear.h>
#include <torch/utils.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace memlayers::nn {

// Up to this many tokens a product costs reading its weights, and it is faster to score sub-keys of
// 8 bits a token at a time than all tokens together by exact ones: `memlayers bench layer --tokens
// 1,2,4,8,16`.
constexpr std::int64_t kFewTokens = 4;

inline bool is_decoding(const at::Tensor& x) {  // [.., width]; without gradients
  return x.numel() <= kFewTokens * x.size(-1) && !torch::GradMode::is_enabled() && x.is_cpu();
}

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

// x W^T + b, bias [out] or undefined; of few tokens as fast as W is read, of bfloat16 numbers on
// the CPU as Float32Product where torch has no fast product.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});
inline at::Tensor project(torch::nn::Linear& linear, const at::Tensor& x) {
  return project(x, linear->weight, linear->bias);
}

// A copy in huge pages, where the system has them: what is read from its beginning to its end comes
// at twice the rate then.
at::Tensor in_huge_pages(const at::Tensor& tensor);
// Moves parameters on the CPU into huge pages, where the system has them, one behind the other in
// one memory.
void to_huge_pages(std::vector<std::pair<std::string, at::Tensor>> parameters);

}  // namespace memlayers::nn

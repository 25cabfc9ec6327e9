// SPDX-License-Identifier: Apache-2.0
#include "nn/linear.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "nn/float32_product.h"

namespace memlayers {
namespace {

constexpr double kHalfUlp = 1.0 / 256;  // of a bfloat16 number, beside it

at::Tensor bfloat16_normal(at::IntArrayRef sizes) {
  return torch::randn(sizes).to(torch::kBFloat16);
}

TEST(Linear, OfBfloat16IsTheFloat32ProductRoundedOnce) {
  torch::manual_seed(1);
  const at::Tensor x = bfloat16_normal({3, 7, 65}), weight = bfloat16_normal({33, 65}),
                   bias = bfloat16_normal({33});
  for (const at::Tensor& b : {bias, at::Tensor()}) {
    const at::Tensor wanted = torch::linear(x.to(torch::kDouble), weight.to(torch::kDouble),
                                            b.defined() ? b.to(torch::kDouble) : b);
    for (const at::Tensor& y :
         {nn::project(x, ops::Weights(weight), b),
          nn::Float32Product::apply(x, weight, b.defined() ? std::optional(b) : std::nullopt)}) {
      EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
      EXPECT_EQ(y.sizes(), wanted.sizes());
      EXPECT_TRUE(torch::allclose(y.to(torch::kDouble), wanted, 1.01 * kHalfUlp, 1e-4));
    }
  }
}

TEST(Linear, OfBfloat16HasTheGradientsOfTheProduct) {
  torch::manual_seed(2);
  const at::Tensor grad = bfloat16_normal({3, 7, 33});
  const std::vector<at::Tensor> values{bfloat16_normal({3, 7, 65}), bfloat16_normal({33, 65}),
                                       bfloat16_normal({33})};
  std::vector<at::Tensor> ours, exact;
  for (const at::Tensor& value : values) {
    ours.push_back(value.clone().requires_grad_());
    exact.push_back(value.to(torch::kDouble).requires_grad_());
  }
  torch::linear(exact[0], exact[1], exact[2]).backward(grad.to(torch::kDouble));
  nn::Float32Product::apply(ours[0], ours[1], std::optional(ours[2])).backward(grad);
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].grad().scalar_type(), torch::kBFloat16);
    EXPECT_TRUE(
        torch::allclose(ours[i].grad().to(torch::kDouble), exact[i].grad(), 1.01 * kHalfUlp, 1e-4))
        << i;
  }
}

TEST(Linear, OfBfloat16IsOursWhereTorchHasNoFastOne) {
  const at::Tensor x = bfloat16_normal({9, 8}).requires_grad_();
  const at::Tensor y = nn::project(x, ops::Weights(bfloat16_normal({5, 8})));
  const bool is_ours = y.grad_fn()->name().find("Float32Product") != std::string::npos;
  EXPECT_EQ(is_ours, !nn::has_bfloat16_products()) << y.grad_fn()->name();
  const at::Tensor floats = nn::project(x.to(torch::kFloat), ops::Weights(torch::randn({5, 8})));
  EXPECT_EQ(floats.grad_fn()->name().find("Float32Product"), std::string::npos);
}

TEST(Linear, LeavesOutGradientsThatNobodyWants) {
  const at::Tensor x = bfloat16_normal({9, 8}).requires_grad_(), weight = bfloat16_normal({5, 8});
  const at::Tensor y = nn::Float32Product::apply(x, weight, std::optional<at::Tensor>());
  const auto found = torch::autograd::grad({y}, {x}, {torch::ones_like(y)});
  const at::Tensor wanted = weight.to(torch::kDouble).sum(0).expand({9, 8});
  EXPECT_TRUE(torch::allclose(found[0].to(torch::kDouble), wanted, 1.01 * kHalfUlp, 1e-4));
  EXPECT_FALSE(weight.grad().defined());
}

}  // namespace
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

#include "memlayers/optimizer.h"

namespace memlayers {
namespace {

using Named = std::vector<std::pair<std::string, at::Tensor>>;

Named make_parameters(at::ScalarType type = at::kFloat) {
  torch::manual_seed(1);
  Named named{{"matrix", torch::randn({5, 3})},
              {"bias", torch::randn({5})},
              {"keys", torch::randn({2, 2, 3, 2})}};
  for (auto& [name, tensor] : named) tensor = tensor.to(type).requires_grad_();
  return named;
}

void set_gradients(Named& named, std::uint64_t seed) {
  torch::manual_seed(seed);
  for (auto& [name, tensor] : named) tensor.mutable_grad() = torch::randn_like(tensor.detach());
}

// One step of one formula in float32, roundings in another order.
constexpr double kTolerance = 5e-6;

TEST(DenseAdamW, EqualsTorchsAdamWWithClippingAndDecayOnMatricesOnly) {
  Named ours = make_parameters(), theirs = make_parameters();
  DenseAdamW optimizer(ours, {.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.2});
  using Options = torch::optim::AdamWOptions;
  const auto options = [](double decay) {
    return std::make_unique<Options>(Options(0.05).betas({0.8, 0.9}).eps(1e-6).weight_decay(decay));
  };
  torch::optim::AdamW expected(
      std::vector<torch::optim::OptimizerParamGroup>{
          {{theirs[0].second}, options(0.2)}, {{theirs[1].second, theirs[2].second}, options(0)}},
      Options(0.05));
  for (std::uint64_t step = 0; step < 6; ++step) {
    set_gradients(ours, step);
    set_gradients(theirs, step);
    const double norm = torch::nn::utils::clip_grad_norm_(
        {theirs[0].second, theirs[1].second, theirs[2].second}, 2.0);
    expected.step();
    EXPECT_NEAR(optimizer.step(0.05, 2.0), norm, 1e-5 * norm);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      const double difference = (ours[i].second - theirs[i].second).abs().max().item<double>();
      EXPECT_LT(difference, kTolerance) << ours[i].first << ", step " << step;
    }
  }
}

TEST(DenseAdamW, ChangesNothingWhereTheGradientIsNotFinite) {
  Named named = make_parameters();
  DenseAdamW optimizer(named, {});
  set_gradients(named, 1);
  optimizer.step(0.1);
  std::vector<at::Tensor> before;
  for (const auto& [name, tensor] : named) before.push_back(tensor.detach().clone());
  for (const auto& [name, tensor] : optimizer.state()) before.push_back(tensor.clone());

  set_gradients(named, 2);
  named[1].second.mutable_grad()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(optimizer.step(0.1, 1.0)));
  std::size_t i = 0;
  for (const auto& [name, tensor] : named) EXPECT_TRUE(tensor.equal(before[i++])) << name;
  for (const auto& [name, tensor] : optimizer.state())
    EXPECT_TRUE(tensor.equal(before[i++])) << name;
}

TEST(DenseAdamW, KeepsAFloat32MasterOfBFloat16Weights) {
  Named rounded = make_parameters(at::kBFloat16), exact = make_parameters(at::kBFloat16);
  for (auto& [name, tensor] : exact) tensor = tensor.detach().to(at::kFloat).requires_grad_();
  DenseAdamW with_master(rounded, {}), plain(exact, {});
  const at::Tensor before = rounded[0].second.detach().clone();
  for (std::uint64_t step = 0; step < 50; ++step) {
    torch::manual_seed(step);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      const at::Tensor gradient = torch::rand(exact[i].second.sizes()).to(at::kBFloat16);
      rounded[i].second.mutable_grad() = gradient;
      exact[i].second.mutable_grad() = gradient.to(at::kFloat);
    }
    with_master.step(1e-4);  // one step alone is lost in bfloat16 numbers near 1
    plain.step(1e-4);
  }
  for (std::size_t i = 0; i < exact.size(); ++i) {
    EXPECT_TRUE(rounded[i].second.equal(exact[i].second.to(at::kBFloat16))) << rounded[i].first;
  }
  EXPECT_FALSE(rounded[0].second.equal(before));
}

TEST(DenseAdamW, ContinuesFromCopiedStateBitForBit) {
  Named one = make_parameters(), two = make_parameters();
  DenseAdamW first(one, {}), second(two, {});
  for (std::uint64_t step = 0; step < 3; ++step) {
    set_gradients(one, step);
    first.step(0.1, 1.0);
  }
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < one.size(); ++i) two[i].second.copy_(one[i].second);
  auto from = first.state();
  auto to = second.state();
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i].second.copy_(from[i].second);
  set_gradients(one, 9);
  set_gradients(two, 9);
  first.step(0.1, 1.0);
  second.step(0.1, 1.0);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].second.equal(two[i].second));
}

TEST(DenseAdamW, PassesTensorsWithoutAGradientBy) {
  Named named = make_parameters();
  DenseAdamW optimizer(named, {});
  const at::Tensor before = named[0].second.detach().clone();
  named[1].second.mutable_grad() = torch::ones({5});
  EXPECT_NEAR(optimizer.step(0.1), std::sqrt(5.0), 1e-6);
  EXPECT_TRUE(named[0].second.equal(before));
  optimizer.zero_grad();
  EXPECT_EQ(optimizer.gradient_norm(), 0);
}

TEST(DenseAdamW, RejectsAnEmptyList) { EXPECT_THROW(DenseAdamW({}, {}), c10::ValueError); }

}  // namespace
}  // namespace memlayers

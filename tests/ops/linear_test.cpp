// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "ops/elementwise.h"
#include "ops/linear/product.h"
#include "ops/op_testing.h"

namespace memlayers {
namespace {

using ops::Weights;
using testing::expect_near;
using testing::normal;

TEST(LinearTokenByToken, IsTheProductAndTheBias) {
  for (std::int64_t T : {0, 1, 3}) {
    for (std::int64_t out : {1, 63, 64, 200}) {
      const at::Tensor x = normal({T, 33}, 1), weight = normal({out, 33}, 2),
                       bias = normal({out}, 3);
      expect_near(ops::linear(x, Weights(weight), bias), torch::linear(x, weight, bias),
                  testing::sum_tolerance(33, 8));
      expect_near(ops::linear(x, Weights(weight)), torch::linear(x, weight),
                  testing::sum_tolerance(33, 8));
    }
  }
  EXPECT_THROW(ops::linear(normal({1, 4}, 1), Weights(normal({3, 5}, 2))), c10::ValueError);
  EXPECT_THROW(ops::linear(normal({1, 4}, 1), Weights(normal({3, 4}, 2).to(torch::kMeta))),
               c10::ValueError);
  EXPECT_THROW(ops::linear(normal({1, 4}, 1), Weights(normal({3, 4}, 2).to(torch::kBFloat16))),
               c10::TypeError);
}

TEST(LinearTokenByToken, RoundsTheSumOfBfloat16Once) {
  for (std::int64_t T : {0, 1, 3}) {
    const at::Tensor x = normal({T, 33}, 1).to(torch::kBFloat16),
                     weight = normal({200, 33}, 2).to(torch::kBFloat16),
                     bias = normal({200}, 3).to(torch::kBFloat16);
    const at::Tensor wanted =
        torch::linear(x.to(torch::kDouble), weight.to(torch::kDouble), bias.to(torch::kDouble));
    const at::Tensor got = ops::linear(x, Weights(weight), bias);
    ASSERT_EQ(got.scalar_type(), torch::kBFloat16);
    // Half a unit in the last of 8 bits, and what float32 sums lose.
    const at::Tensor bound = wanted.abs() * 0x1.01p-8 + 1e-5;
    EXPECT_TRUE(((got.to(torch::kDouble) - wanted).abs() <= bound).all().item<bool>());
  }
}

TEST(LinearTokenByToken, GivesATokenTheBitsThatItHasAlone) {
  for (const at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor x = normal({7, 33}, 1).to(type), bias = normal({200}, 3).to(type);
    const Weights weights(normal({200, 33}, 2).to(type));
    const at::Tensor together = ops::linear(x, weights, bias);
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      EXPECT_TRUE(
          torch::equal(ops::linear(x.narrow(0, t, 1), weights, bias), together.narrow(0, t, 1)));
    }
  }
}

TEST(LinearTokenByToken, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor x = normal({3, 512}, 1);
  const Weights weights(normal({300, 512}, 2));
  testing::expect_same_bits_for_any_threads([&] { return ops::linear(x, weights); });
}

TEST(LinearTokenByToken, AppliesTheActivationToTheRoundedProduct) {
  for (const at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor x = normal({3, 33}, 1).to(type);
    const Weights weights(normal({70, 33}, 2).to(type));
    const at::Tensor product = ops::linear(x, weights);
    const auto expect_same = [&](ops::Activation activation, const at::Tensor& wanted) {
      ops::Product activated("test", x, weights, {}, activation);
      ops::Stages stages;
      activated.add_to(stages, 0, 20);
      activated.add_to(stages, 20, activated.columns());
      stages.run();
      EXPECT_EQ(activated.out().scalar_type(), type);
      // Another exponential function: a step of rounding.
      const double step = type == torch::kFloat ? 1e-6 : 0x1p-7;
      EXPECT_TRUE(torch::allclose(activated.out(), wanted, step, 1e-9));
      EXPECT_TRUE(torch::equal(activated.numbers(), activated.out().to(torch::kFloat)));
    };
    expect_same(ops::Activation::kNone, product);
    expect_same(ops::Activation::kSilu, torch::silu(product));
    expect_same(ops::Activation::kSigmoid, torch::sigmoid(product));
  }
}

using kernels::WeightCode;

// Weights [out, in] of a code, nearest to numbers.
Weights packed(WeightCode code, const at::Tensor& numbers) {
  const std::int64_t out = numbers.size(0), in = numbers.size(1);
  const kernels::PackedWeights shape{code, out, in};
  const at::Tensor tiles = torch::zeros({shape.tile_count() * shape.tile_bytes()}, torch::kByte);
  for (std::int64_t row = 0; row < out; ++row) {
    for (std::int64_t group = 0; group * kernels::kWeightGroup < in; ++group) {
      const std::int64_t first = group * kernels::kWeightGroup;
      const auto count = std::min(kernels::kWeightGroup, in - first);
      kernels::set_group(
          shape, tiles.mutable_data_ptr<std::uint8_t>(), row, group,
          kernels::quantize_group(code, numbers.const_data_ptr<float>() + row * in + first, count));
    }
  }
  return {tiles, code, out, in};
}

constexpr WeightCode kCodes[] = {WeightCode::kInt8, WeightCode::kInt4, WeightCode::kInt4Offset};

TEST(PackedLinear, IsTheProductWithWhatItsNumbersStandFor) {
  for (const WeightCode code : kCodes) {
    for (std::int64_t T : {0, 1, 3, 20}) {
      for (std::int64_t out : {1, 16, 63, 200}) {
        const at::Tensor x = normal({T, 130}, 1), bias = normal({out}, 3);
        const Weights weights = packed(code, normal({out, 130}, 2));
        const at::Tensor numbers = weights.unpacked();
        // A token's numbers are rounded to 127 steps of the greatest in 32.
        const double off = 0.05 * std::sqrt(130.0);
        expect_near(ops::linear(x, weights, bias), torch::linear(x, numbers, bias), off);
        expect_near(ops::linear(x, weights), torch::linear(x, numbers), off);
      }
    }
  }
  EXPECT_THROW(Weights(torch::zeros({10}, torch::kByte), WeightCode::kInt8, 16, 32),
               c10::ValueError);
}

TEST(PackedLinear, GivesATokenTheBitsThatItHasAloneForAnyNumberOfThreads) {
  for (const WeightCode code : kCodes) {
    const at::Tensor x = normal({37, 512}, 1), bias = normal({300}, 3);
    const Weights weights = packed(code, normal({300, 512}, 2));
    const at::Tensor together = ops::linear(x, weights, bias);
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      EXPECT_TRUE(
          torch::equal(ops::linear(x.narrow(0, t, 1), weights, bias), together.narrow(0, t, 1)));
    }
    testing::expect_same_bits_for_any_threads([&] { return ops::linear(x, weights); });
  }
}

TEST(PackedLinear, ComesInPartsThatEndAnywhere) {
  const at::Tensor x = normal({3, 64}, 1);
  const Weights weights = packed(WeightCode::kInt8, normal({70, 64}, 2));
  ops::Product product("test", x, weights, {});
  ops::Stages stages;
  product.add_to(stages, 0, 21);
  product.add_to(stages, 21, product.columns());
  stages.run();
  EXPECT_TRUE(torch::equal(product.out(), ops::linear(x, weights)));
}

TEST(SwigluTokenByToken, IsTheProductOfWhatTorchRounds) {
  for (const at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor gate = normal({3, 700}, 1).to(type), up = normal({3, 700}, 2).to(type);
    const double step = type == torch::kFloat ? 2e-6 : 0x1p-6;
    EXPECT_TRUE(torch::allclose(ops::swiglu(gate, up), torch::silu(gate) * up, step, 1e-9));
  }
  EXPECT_THROW(ops::swiglu(normal({1, 4}, 1), normal({1, 5}, 2)), c10::ValueError);
  EXPECT_THROW(ops::swiglu(normal({4}, 1), normal({4}, 2).to(torch::kBFloat16)), c10::TypeError);
}

TEST(TimesTokenByToken, HasTorchsBits) {
  for (const at::ScalarType type : {torch::kFloat, torch::kBFloat16}) {
    const at::Tensor x = normal({3, 700}, 1).to(type), by = normal({3, 700}, 2).to(type);
    EXPECT_TRUE(torch::equal(ops::times(x, by), x * by));
    const at::Tensor one = by.narrow(1, 0, 1);
    EXPECT_TRUE(torch::equal(ops::times(x, one), x * one));
  }
  EXPECT_THROW(ops::times(normal({2, 4}, 1), normal({2, 2}, 2)), c10::ValueError);
  EXPECT_THROW(ops::times(normal({2, 4}, 1), normal({1, 4}, 2)), c10::ValueError);
  EXPECT_THROW(ops::times(normal({2, 4}, 1), normal({2, 4}, 2).to(torch::kBFloat16)),
               c10::TypeError);
}

}  // namespace
}  // namespace memlayers

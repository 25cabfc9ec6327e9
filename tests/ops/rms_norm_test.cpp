// SPDX-License-Identifier: Apache-2.0
#include "ops/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "ops/op_testing.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;
using testing::sum_tolerance;

constexpr double kEps = 1e-3;

struct Result {
  at::Tensor y, grad_x, grad_scale;
};

Result ours(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& grad) {
  auto [y, factor] = ops::rms_norm(x, scale, kEps);
  auto [grad_x, grad_scale] = ops::rms_norm_backward(grad, x, scale, factor);
  return {y, grad_x, grad_scale};
}

// By plain operators, in float64.
Result plain(const at::Tensor& x_in, const at::Tensor& scale_in, const at::Tensor& grad) {
  const at::Tensor x = x_in.to(torch::kDouble).requires_grad_();
  const at::Tensor scale = scale_in.to(torch::kDouble).requires_grad_();
  const at::Tensor y = scale * (x * torch::rsqrt(x.square().mean(-1, true) + kEps));
  y.backward(grad.to(torch::kDouble));
  const auto narrow = [](const at::Tensor& tensor) { return tensor.detach().to(torch::kFloat); };
  return {narrow(y), narrow(x.grad()), narrow(scale.grad())};
}

struct Shapes {
  std::vector<std::int64_t> x, scale;
};

// A vector for all; one for each of the last two dimensions; one for the first of the last three;
// nothing; a single vector; more vectors than are summed at once.
const std::vector<Shapes> kShapes = {{{3, 4, 2, 7}, {7}},
                                     {{3, 4, 2, 16}, {2, 16}},
                                     {{5, 2, 9, 33}, {2, 1, 33}},
                                     {{0, 2, 8}, {2, 8}},
                                     {{1024}, {1024}},
                                     {{2, 1, 5, 3}, {2, 1, 1, 3}},
                                     {{300, 2, 20}, {2, 20}},
                                     {{4, 1}, {1}}};

TEST(RmsNorm, IsThatOfTheOperatorsWithItsGradients) {
  for (const auto& [x_shape, scale_shape] : kShapes) {
    const at::Tensor x = normal(x_shape, 1) * 3, scale = normal(scale_shape, 2);
    const at::Tensor grad = normal(x_shape, 3);
    const Result got = ours(x, scale, grad), wanted = plain(x, scale, grad);
    expect_near(got.y, wanted.y, sum_tolerance(x.size(-1), 4));
    expect_near(got.grad_x, wanted.grad_x, sum_tolerance(x.size(-1), 4));
    const std::int64_t terms = x.numel() / std::max<std::int64_t>(1, scale.numel());
    expect_near(got.grad_scale, wanted.grad_scale, sum_tolerance(terms, 10));
  }
}

TEST(RmsNorm, TakesWhatIsNotContiguous) {
  const at::Tensor turned = normal({4, 3, 2, 8}, 1).transpose(0, 1), scale = normal({2, 8}, 2);
  const at::Tensor grad = torch::ones({}).expand({3, 4, 2, 8});
  const Result got = ours(turned, scale.t().contiguous().t(), grad);
  const Result wanted = ours(turned.contiguous(), scale, grad.contiguous());
  EXPECT_TRUE(torch::equal(got.y, wanted.y));
  EXPECT_TRUE(torch::equal(got.grad_x, wanted.grad_x));
  EXPECT_TRUE(torch::equal(got.grad_scale, wanted.grad_scale));
}

// The types of the two factors decide what is rounded when, as in the operators.
TEST(RmsNorm, RoundsBfloat16AsTheOperators) {
  for (const at::ScalarType x_type : {torch::kFloat, torch::kBFloat16}) {
    for (const at::ScalarType scale_type : {torch::kFloat, torch::kBFloat16}) {
      const at::Tensor x = normal({3, 64}, 1).to(x_type), scale = normal({64}, 2).to(scale_type);
      const at::Tensor wide = x.to(torch::kFloat), grad = torch::ones({3, 64});
      const at::Tensor root = torch::rsqrt(wide.square().mean(-1, true) + kEps);
      const at::Tensor wanted = scale * (wide * root).to(x_type);
      const Result got = ours(x, scale, grad.to(wanted.scalar_type()));
      ASSERT_EQ(got.y.scalar_type(), wanted.scalar_type());
      // A factor of the float32 root's last bit may round a bfloat16 the other way.
      const double ulp = x_type == torch::kBFloat16 ? 0x1p-7 : 1e-6;
      EXPECT_TRUE(torch::allclose(got.y.to(torch::kFloat), wanted.to(torch::kFloat), ulp, 0));
      if (x_type == torch::kBFloat16) {
        EXPECT_LE((got.y != wanted).sum().item<std::int64_t>(), 2);
      }
      const Result exact = plain(wide, scale, grad);
      ASSERT_EQ(got.grad_x.scalar_type(), x_type);
      ASSERT_EQ(got.grad_scale.scalar_type(), scale_type);
      EXPECT_TRUE(torch::allclose(got.grad_x.to(torch::kFloat), exact.grad_x, 0x1p-7, 1e-5));
      EXPECT_TRUE(
          torch::allclose(got.grad_scale.to(torch::kFloat), exact.grad_scale, 0x1p-7, 1e-5));
    }
  }
}

TEST(RmsNorm, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor x = normal({1000, 2, 64}, 1), scale = normal({2, 64}, 2);
  const at::Tensor grad = normal({1000, 2, 64}, 3);
  testing::expect_same_bits_for_any_threads([&] {
    const Result got = ours(x, scale, grad);
    return torch::cat({got.y.flatten(), got.grad_x.flatten(), got.grad_scale.flatten()});
  });
}

TEST(RmsNorm, ShowsNaNAndSaysWhatDoesNotFit) {
  const auto norm = [](const at::Tensor& x, const at::Tensor& scale) {
    return ops::rms_norm(x, scale, kEps).y;
  };
  EXPECT_TRUE(norm(torch::full({1, 4}, NAN), normal({4}, 1)).isnan().all().item<bool>());
  EXPECT_THROW(norm(normal({1, 4}, 1), normal({5}, 2)), c10::ValueError);
  EXPECT_THROW(norm(normal({4}, 1), normal({2, 4}, 2)), c10::ValueError);
  EXPECT_THROW(norm(normal({2, 3, 4}, 1), normal({2, 4}, 2)), c10::ValueError);
  EXPECT_THROW(norm(normal({}, 1), normal({1}, 2)), c10::ValueError);
  EXPECT_THROW(norm(normal({4}, 1), normal({}, 2)), c10::ValueError);
  EXPECT_THROW(norm(normal({4}, 1).to(torch::kDouble), normal({4}, 2)), c10::TypeError);
  const at::Tensor x = normal({2, 4}, 1), scale = normal({4}, 2);
  const auto [y, factor] = ops::rms_norm(x, scale, kEps);
  EXPECT_THROW(ops::rms_norm_backward(normal({2, 3}, 3), x, scale, factor), c10::ValueError);
}

}  // namespace
}  // namespace memlayers

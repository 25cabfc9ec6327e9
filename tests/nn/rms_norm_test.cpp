// SPDX-License-Identifier: Apache-2.0
#include "nn/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "ops/op_testing.h"

namespace memlayers::nn {
namespace {

using testing::expect_near;
using testing::normal;
using testing::sum_tolerance;

// By plain operators.
at::Tensor plain(const at::Tensor& x, const at::Tensor& scale, double eps) {
  return scale * (x * torch::rsqrt(x.square().mean(-1, true) + eps));
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
    const at::Tensor x = (normal(x_shape, 1) * 3).requires_grad_();
    const at::Tensor scale = normal(scale_shape, 2).requires_grad_();
    const at::Tensor wide_x = x.detach().to(torch::kDouble).requires_grad_();
    const at::Tensor wide_scale = scale.detach().to(torch::kDouble).requires_grad_();
    const at::Tensor grad = normal(x_shape, 3);
    const at::Tensor y = rms_norm(x, scale, 1e-3), wanted = plain(wide_x, wide_scale, 1e-3);
    const double tolerance = sum_tolerance(x.size(-1), 4);
    expect_near(y, wanted.to(torch::kFloat), tolerance);
    y.backward(grad);
    wanted.backward(grad.to(torch::kDouble));
    expect_near(x.grad(), wide_x.grad().to(torch::kFloat), tolerance);
    expect_near(scale.grad(), wide_scale.grad().to(torch::kFloat),
                sum_tolerance(x.numel() / std::max<std::int64_t>(1, scale.numel()), 10));
    const torch::NoGradGuard no_grad;
    EXPECT_TRUE(torch::equal(rms_norm(x, scale, 1e-3), y));
  }
}

TEST(RmsNorm, TakesWhatIsNotContiguous) {
  const at::Tensor x = normal({4, 3, 2, 8}, 1), scale = normal({2, 8}, 2);
  const at::Tensor turned = x.transpose(0, 1).requires_grad_();
  const at::Tensor whole = turned.detach().contiguous().requires_grad_();
  const at::Tensor y = rms_norm(turned, scale, 1e-6), same = rms_norm(whole, scale, 1e-6);
  EXPECT_TRUE(torch::equal(y, same));
  y.sum().backward();  // an expanded gradient
  same.backward(torch::ones_like(same));
  EXPECT_TRUE(torch::equal(turned.grad(), whole.grad()));
}

// The types of the two factors decide what is rounded when, as in the operators.
TEST(RmsNorm, RoundsBfloat16AsTheOperators) {
  for (const at::ScalarType x_type : {torch::kFloat, torch::kBFloat16}) {
    for (const at::ScalarType scale_type : {torch::kFloat, torch::kBFloat16}) {
      const at::Tensor x = normal({3, 64}, 1).to(x_type).requires_grad_();
      const at::Tensor scale = normal({64}, 2).to(scale_type).requires_grad_();
      const at::Tensor wide = x.detach().to(torch::kFloat);
      const at::Tensor root = torch::rsqrt(wide.square().mean(-1, true) + 1e-6);
      const at::Tensor wanted = scale.detach() * (wide * root).to(x_type);
      const at::Tensor got = rms_norm(x, scale, 1e-6);
      ASSERT_EQ(got.scalar_type(), wanted.scalar_type());
      // A factor of the float32 root's last bit may round a bfloat16 the other way.
      const double ulp = x_type == torch::kBFloat16 ? 0x1p-7 : 1e-6;
      EXPECT_TRUE(
          torch::allclose(got.detach().to(torch::kFloat), wanted.to(torch::kFloat), ulp, 0));
      if (x_type == torch::kBFloat16) {
        EXPECT_LE((got != wanted).sum().item<std::int64_t>(), 2);
      }
      got.backward(torch::ones_like(got));
      const at::Tensor exact_x = wide.clone().requires_grad_();
      const at::Tensor exact_scale = scale.detach().to(torch::kFloat).requires_grad_();
      plain(exact_x, exact_scale, 1e-6).sum().backward();
      for (const auto& [of, exact] : {std::pair(x, exact_x), std::pair(scale, exact_scale)}) {
        ASSERT_EQ(of.grad().scalar_type(), of.scalar_type());
        EXPECT_TRUE(torch::allclose(of.grad().to(torch::kFloat), exact.grad(), 0x1p-7, 1e-5));
      }
    }
  }
}

TEST(RmsNorm, GivesTheSameBitsForAnyNumberOfThreads) {
  const at::Tensor x = normal({1000, 2, 64}, 1), scale = normal({2, 64}, 2);
  const at::Tensor grad = normal({1000, 2, 64}, 3);
  testing::expect_same_bits_for_any_threads([&] {
    const at::Tensor a = x.clone().requires_grad_(), b = scale.clone().requires_grad_();
    const at::Tensor y = rms_norm(a, b, 1e-6);
    y.backward(grad);
    return torch::cat({y.detach().flatten(), a.grad().flatten(), b.grad().flatten()});
  });
}

TEST(RmsNorm, ShowsNaNAndSaysWhatDoesNotFit) {
  EXPECT_TRUE(rms_norm(torch::full({1, 4}, NAN), normal({4}, 1), 1).isnan().all().item<bool>());
  EXPECT_THROW(rms_norm(normal({1, 4}, 1), normal({5}, 2), 1), c10::ValueError);
  EXPECT_THROW(rms_norm(normal({4}, 1), normal({2, 4}, 2), 1), c10::ValueError);
  EXPECT_THROW(rms_norm(normal({2, 3, 4}, 1), normal({2, 4}, 2), 1), c10::ValueError);
}

}  // namespace
}  // namespace memlayers::nn

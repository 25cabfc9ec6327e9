// SPDX-License-Identifier: Apache-2.0
#include "nn/rms_norm.h"

#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "ops/op_testing.h"

namespace memlayers::nn {
namespace {

using testing::expect_near;

// What has no kernel goes by plain operators: here float64, elsewhere another device.
TEST(RmsNorm, ByPlainOperatorsIsThatOfTheKernels) {
  const at::Tensor x = torch::randn({5, 3, 24}), scale = torch::rand({24}) + 0.5;
  const auto with_gradients = [&](at::ScalarType type) {
    const at::Tensor a = x.clone().to(type).requires_grad_(),
                     b = scale.clone().to(type).requires_grad_();
    const at::Tensor y = rms_norm(a, b, 1e-3);
    EXPECT_EQ(y.scalar_type(), type);
    const auto grads = torch::autograd::grad({(y * x).sum()}, {a, b});
    return std::vector<at::Tensor>{y, grads[0], grads[1]};
  };
  const auto kernels = with_gradients(torch::kFloat), plain = with_gradients(torch::kDouble);
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    expect_near(kernels[i], plain[i].to(torch::kFloat), 1e-5);
  }
}

}  // namespace
}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
#include "nn/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "ops/rms_norm.h"

namespace memlayers::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& scale,
                            double eps) {
    auto [y, factor] = ops::rms_norm(x, scale, eps);
    context->save_for_backward({x, scale, factor});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    auto [x, scale] = ops::rms_norm_backward(grads[0], saved[0], saved[1], saved[2]);
    return {x, scale, at::Tensor()};
  }
};

bool is_known(const at::Tensor& tensor) {
  return tensor.is_cpu() &&
         (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps) {
  if (!is_known(x) || !is_known(scale)) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor normed = wide * torch::rsqrt(wide.square().mean(-1, true) + eps);
    return scale * normed.to(x.scalar_type());
  }
  const bool has_gradient =
      torch::GradMode::is_enabled() && (x.requires_grad() || scale.requires_grad());
  return has_gradient ? RmsNorm::apply(x, scale, eps) : ops::rms_norm(x, scale, eps).y;
}

}  // namespace memlayers::nn

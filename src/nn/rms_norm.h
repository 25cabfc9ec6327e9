// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include "ops/few_tokens.h"

namespace memlayers::nn {

// scale * x / sqrt(mean of x^2 over the last dimension + eps), in float32, returned in x's type
// [RMS19]. `scale` broadcasts against x.
inline at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps) {
  constexpr std::int64_t kFew = 1 << 14;  // numbers for which calling eight operators costs more
  const auto is_known = [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16;
  };
  const std::int64_t dims = x.dim() - scale.dim();
  if (is_known(x) && is_known(scale) && x.is_cpu() && x.numel() <= kFew &&
      !torch::GradMode::is_enabled() && dims >= 0 && x.sizes().slice(dims) == scale.sizes()) {
    return ops::rms_norm_of_few_tokens(x, scale, eps);
  }
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * torch::rsqrt(wide.square().mean(-1, true) + eps);
  return scale * normed.to(x.scalar_type());
}

}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

namespace memlayers::nn {

// scale * x / sqrt(mean of x^2 over the last dimension + eps), in float32, returned in x's type
// [RMS19]. `scale` broadcasts against x.
inline at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * torch::rsqrt(wide.square().mean(-1, true) + eps);
  return scale * normed.to(x.scalar_type());
}

}  // namespace memlayers::nn

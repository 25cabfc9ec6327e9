// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace memlayers::nn {

// scale * x / sqrt(mean of x^2 over the last dimension + eps), in float32, the second factor
// returned in x's type [RMS19]. scale has the shape of x's last dimensions; ones before its last
// stand for any number. On a CPU one pass forward and one backward.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps);

}  // namespace memlayers::nn

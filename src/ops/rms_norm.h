// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace memlayers::ops {

// y = scale * n, n = x / sqrt(mean of x^2 over the last dimension + eps) [RMS19], in one pass: n is
// computed in float32 and rounded to x's type. x and scale float32 or bfloat16, each for itself, on
// the CPU. scale has the shape of x's last dimensions; ones before its last stand for any number.
// y [x's shape] is bfloat16 if both are; factor [vectors] float32: of each vector n / x.
struct Normed {
  at::Tensor y, factor;
};
Normed rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps);

// The gradients of x and scale, in their types, from that of y; sums are float32 and float64.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& scale,
                                                     const at::Tensor& factor);

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <tuple>

#include "kernels/kernels.h"

namespace memlayers::ops {

// y = scale * n, n = x / sqrt(mean of x^2 over the last dimension + eps) [RMS19], in one pass: n is
// computed in float32 and rounded to x's type. x and scale float32 or bfloat16, each for itself, on
// the CPU. scale has the shape of x's last dimensions; ones before its last stand for any number.
// y [x's shape] is bfloat16 if both are; factor [vectors] float32: of each vector n / x.
struct Normed {
  at::Tensor y, factor;
};
Normed rms_norm(const at::Tensor& x, const at::Tensor& scale, double eps);

// The same for one vector x (width) of numbers of type X; returns the factor.
template <class X, class Scale, class Out>
float normalise(const float* x, const Scale* scale, std::int64_t width, double eps, Out* y) {
  const double mean = kernels::active().squared_norm(x, width) / static_cast<double>(width);
  const auto factor = static_cast<float>(1 / std::sqrt(mean + eps));
  for (std::int64_t c = 0; c < width; ++c) y[c] = scale[c] * static_cast<X>(x[c] * factor);
  return factor;
}

// The gradients of x and scale, in their types, from that of y; sums are float32 and float64.
std::tuple<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad, const at::Tensor& x,
                                                     const at::Tensor& scale,
                                                     const at::Tensor& factor);

}  // namespace memlayers::ops

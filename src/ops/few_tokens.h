// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace memlayers::ops {

// x W^T + b for few tokens, which costs reading W: W is read once, in its order, at the rate of the
// memory where it lies in huge pages (nn::to_huge_pages; else, and a product for many tokens also
// there, at less than half of it). x [T, in], weight [out, in], bias [out] or undefined, float32 on
// the CPU; no gradient. Returns [T, out].
at::Tensor linear_of_few_tokens(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias);

// scale * x / sqrt(mean of x^2 over the last dimension + eps) [RMS19] in one pass. x float32 on the
// CPU; scale float32 of the shape of x's last dimensions; no gradient.
at::Tensor rms_norm_of_few_tokens(const at::Tensor& x, const at::Tensor& scale, double eps);

}  // namespace memlayers::ops

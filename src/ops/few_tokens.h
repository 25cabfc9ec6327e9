// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace memlayers::ops {

// x W^T + b for few tokens, which costs reading W: W is read once, in its order, at the rate of the
// memory where it lies in huge pages (nn::to_huge_pages; else, and a product for many tokens also
// there, at less than half of it). x [T, in], weight [out, in], bias [out] or undefined, all
// float32 or all bfloat16, on the CPU; no gradient. Returns [T, out] of their type; sums are
// float32.
at::Tensor linear_of_few_tokens(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias);

}  // namespace memlayers::ops

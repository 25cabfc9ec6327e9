// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace memlayers::ops {

// x W^T + b for few tokens, which costs reading W: rows of W are read side by side, as pool rows
// are, at the rate of the memory (a product for many tokens is at half of it). x [T, in], weight
// [out, in], bias [out] or undefined, float32 on the CPU; no gradient. Returns [T, out].
at::Tensor linear_of_few_tokens(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias);

}  // namespace memlayers::ops

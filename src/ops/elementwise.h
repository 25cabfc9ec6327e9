// SPDX-License-Identifier: Apache-2.0
// What stands between the products of few tokens, without the dispatcher. On the CPU, contiguous or
// made so; no gradient. Every number comes from those in its place alone, rounded to their type,
// float32 or bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

namespace memlayers::ops {

// silu(gate) * up of one shape; silu is rounded too.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// x * by: x [T, w]; by [T, w], or [T, 1] for a factor a token.
at::Tensor times(const at::Tensor& x, const at::Tensor& by);

}  // namespace memlayers::ops

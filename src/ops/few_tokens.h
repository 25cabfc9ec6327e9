// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "memlayers/ops.h"

namespace memlayers::ops {

// Of x W^T + b: weight [out, in], bias [out] or undefined.
struct Linear {
  at::Tensor weight, bias;
};

// x W^T + b for few tokens, which costs reading W: W is read once, in its order, at the rate of the
// memory where it lies in huge pages (nn::to_huge_pages; else, and a product for many tokens also
// there, at less than half of it). x [T, in], weight and bias, all float32 or all bfloat16, on the
// CPU; no gradient. Returns [T, out] of their type; sums are float32.
at::Tensor linear_of_few_tokens(const at::Tensor& x, const Linear& linear);

// A memory layer's forward of few tokens without gradient, but for the rows it reads, in two
// parallel parts: the one before and the one after them. What torch's operators would give, to what
// other orders of sums and another exponential function round.
//
// The parts of a layer, all of x's type (float32 or bfloat16) but for the keys; undefined weights:
// the layer has no such part.
struct LayerParts {
  Linear query, swilu, gate, value;
  at::Tensor query_norm;  // [2, k_dim / 2], of either type; undefined without qk-norm
  double norm_eps;
  const PackedKeys* keys;
  std::int64_t knn;
};

struct Selected {
  at::Tensor slots, weights;  // [T, H * k], as lookup_softmax() gives them
  // [T, v_dim], [T, 1] float32: silu(swilu(x)), sigmoid(gate(x)); undefined where the layer has no
  // such part.
  at::Tensor swilu, gate;
};
Selected select_of_few_tokens(const at::Tensor& x, const LayerParts& parts);

// sums [T, v_dim] float32 of rows: gate * value(sums * swilu), of type `type`.
at::Tensor values_of_few_tokens(const at::Tensor& sums, const Selected& selected,
                                const LayerParts& parts, at::ScalarType type);

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "memlayers/memory_layer.h"
#include "memlayers/ops.h"

namespace memlayers::nn {

// All that a memory layer computes of its tokens x [T, dim] before it has their rows.
struct Asked {
  at::Tensor slots, weights;  // [T, H * k]: which rows, and of what weight each
  // [T, v_dim], [T, 1] of x's type: silu(swilu_proj(x)), sigmoid(gate(x)); undefined where the
  // layer has none.
  at::Tensor swilu, gate;
};

// How much of what the memory gives each token x [T, dim] takes, [T, 1] of x's type:
// sigmoid(gate(x)); undefined where the layer has no gate of its own.
at::Tensor gate_of(const MemoryLayerImpl& layer, const at::Tensor& x);

// What is asked, token by token (nn/token_by_token.h), in one parallel part, which costs reading
// the weights. x of a type that the weights of the layer take; packed_keys: its sub-keys of one
// version (ProductKeys::packed).
Asked ask_token_by_token(const MemoryLayerImpl& layer, const at::Tensor& x,
                         const PackedKeys& packed_keys);

}  // namespace memlayers::nn

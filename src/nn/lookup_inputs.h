// SPDX-License-Identifier: Apache-2.0
// What a memory layer's lookup compares: for those who look up without forward().
#pragma once

#include "memlayers/memory_layer.h"

namespace memlayers::nn {

// [H, 2, n, k_dim/2] float32: the sub-keys as they are scored, of those that are open; normalised
// where the layer does so. `rows`: of MemoryLayer::keys_of.
at::Tensor scored_keys(const MemoryLayerImpl& layer, const Snapshot* rows = nullptr);

// The same for queries as the layer's query_proj gives them, [T, h, k_dim] of any number h of
// heads.
at::Tensor scored_query(const MemoryLayerImpl& layer, const at::Tensor& projected);

// Writes those of the sub-keys that are this layer's into `keys` [H, 2, n_keys, k_dim/2], of any
// type. Throws Error where they do not fit.
void write_sub_keys(const SubKeys& sub_keys, std::int64_t layer, at::Tensor& keys);

}  // namespace memlayers::nn

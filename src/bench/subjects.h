// SPDX-License-Identifier: Apache-2.0
// The pool, the layer and the optimizers of a case, as training makes them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/bench.h"
#include "memlayers/memory_layer.h"
#include "memlayers/optimizer.h"

namespace memlayers::bench {

inline constexpr std::uint64_t kSeed = 1;

// Throws Error where the pool's rows do not fit into the free memory.
void check_pool_memory(const Case& c);
// Throws Error where a batch does not: its inputs and outputs, queries, slots and weights, and
// where `with_scores` the scores of all sub-keys; and the sub-keys with their gradient.
void check_batch_memory(const Case& c, bool with_scores);
// Throws Error where `models` decoders, their gradients and AdamW's moments, and a batch's logits
// do not.
void check_decoder_memory(const Case& c, int models);
MemoryPool make_pool(const Case& c);                     // checks rows and batch first
at::ScalarType model_type(const Case& c);                // of activations and dense weights
MemoryLayer make_layer(const Case& c, MemoryPool pool);  // other weights each time
std::int64_t row_bytes(const MemoryPool& pool);

// The pool's rows and the tables of their state, [slots, ..] each.
std::vector<at::Tensor> row_tables(const MemoryPool& pool, RowOptimizer& optimizer);

// Bytes of row, state and count that one step of the optimizer reads for each row; it writes as
// many.
std::int64_t touched_bytes_a_row(const MemoryPool& pool, RowOptimizer& optimizer);

// The pool's optimizer, its state in memory as it is once every row has been trained (a first touch
// takes the system longer than the update). Throws Error where that does not fit.
std::unique_ptr<RowOptimizer> make_row_optimizer(const Case& c, MemoryPool pool);
DenseAdamW make_dense_optimizer(const Case& c,
                                std::vector<std::pair<std::string, at::Tensor>> parameters);
std::vector<std::pair<std::string, at::Tensor>> dense_parameters(const MemoryLayer& layer);
std::int64_t dense_bytes(const MemoryLayer& layer);
// Bytes of sub-keys that one token must read: in 8 bits; the few that could win add next to
// nothing.
std::int64_t packed_key_bytes(const MemoryLayer& layer);

// Leaves in the pool the gradient that a batch with these slots leaves there.
void record_gradient(MemoryPool& pool, const at::Tensor& slots, const at::Tensor& weights);

// Softmax weights as a lookup gives them, [tokens, heads * knn].
at::Tensor draw_weights(const Case& c);

// What a token reads from the pool: the weighted sum of rows, of PEER with x [tokens, dim].
at::Tensor gather_rows(const Case& c, MemoryPool& pool, const at::Tensor& x,
                       const at::Tensor& slots, const at::Tensor& weights);

}  // namespace memlayers::bench

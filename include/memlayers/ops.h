// SPDX-License-Identifier: Apache-2.0
// The tensor functions of a memory layer. Legend of shapes: T tokens, H heads, k slots a head
// (knn), n sub-keys a set (n_keys), d = k_dim, S = n * n slots, W row width, J slots read a token
// (H * k).
//
// On a CPU they run our kernels, elsewhere the plain ATen versions in memlayers::reference, which
// are also the oracle of the tests. The same functions are registered as torch.ops.memlayers.*,
// where lookup returns (scores, slots), as torch.topk does. Results have the same bits for any
// number of threads. Throw ValueError for a shape, TypeError for a dtype, IndexError for a slot
// outside the pool.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/parallel.h"

namespace memlayers {

class Snapshot;

// The k slots of the n x n grid with the best scores row_score[i] + col_score[j], exactly, per
// token and head, best first; Sec. 3.1 of [PK19]. Equal scores: that with the better row first. NaN
// ranks highest, as in torch.topk, so that it is seen and not hidden.
//
// query [T, H, d] and keys [H, 2, n, d/2] (0: row set, 1: column set), float32 or bfloat16.
// Returns slots [T, H, k] int64 in the shell numbering of docs/formats.md, and scores [T, H, k]
// float32, differentiable in query and keys; backward touches only the chosen sub-keys.
std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn);

// The same with the weights of a memory layer, softmax(scores) over k, in place of the scores.
std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn);

// Sub-keys in 8 bits beside the exact ones, for reading a quarter of the bytes: what one token's
// lookup costs is reading all sub-keys.
struct PackedKeys {
  at::Tensor keys;   // [H, 2, n, d/2] float32, contiguous
  at::Tensor rows;   // [H * 2 * n, bytes] uint8: the same as int8 rows
  at::Tensor scale;  // [H * 2 * n] float32: those of the rows
  at::Tensor norm;   // the same: an upper bound of a row's length
  at::Tensor error;  // the same: an upper bound of |key - its row|, and of what rounding costs
};
PackedKeys pack_keys(const at::Tensor& keys);  // throws ValueError where a key is not finite

// lookup_softmax(query, packed.keys, knn) for few tokens, without gradient: scores from the 8-bit
// rows decide, by the bound |query| * error, which sub-keys could be among the best k; those few
// are scored exactly. Weights and slots as they are, to float32 rounding of the scores.
std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const PackedKeys& packed,
                                                  std::int64_t knn);

// The weighted sum of the rows that a token's heads chose: out[t] = sum_j weights[t, j] *
// values[slots[t, j]].
//
// values [S, W] float32 or bfloat16; slots [T, J] int64; weights [T, J] float32. Returns [T, W]
// float32. Differentiable in weights; in values, the gradient is dense, or a sparse COO tensor of
// the touched rows where `sparse_grad`. A MemoryPool's gradient stays factored instead.
at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool sparse_grad = false);

// PEER [PEER24]: a row is the pair (U, V) of widths D and W - D; out[t] = sum_j weights[t, j] *
// gelu(x[t] . U[slots[t, j]]) * V[slots[t, j]], gelu exact (by erf).
//
// values [S, W]; x [T, D] float32; slots, weights [T, J]. Returns [T, W - D] float32.
at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool sparse_grad = false);

// The same over the rows of a store's snapshot (store.h), of any type, read where they lie: for
// serving, without gradients. Rows must be on the CPU. PEER with kInt4: D a multiple of 64. Throws
// Error where a row that is read for the first time has another checksum than its file says.
at::Tensor gather(const Snapshot& rows, const at::Tensor& slots, const at::Tensor& weights);
at::Tensor peer_gather(const Snapshot& rows, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights);

// Rows in 8 bits (a scale a row) or 4 bits (a scale for 32 columns) for reading: docs/formats.md.
// values [S, W] float32 or bfloat16, finite. Returns [S, quantized_row_bytes(type, W)] uint8.
at::Tensor quantize_rows(const at::Tensor& values, RowType type);
at::Tensor dequantize_rows(const at::Tensor& rows, RowType type, std::int64_t width);  // float32
std::int64_t quantized_row_bytes(RowType type, std::int64_t width);

// gather and peer_gather over such rows; differentiable in weights and x, not in rows. PEER with
// kInt4: D a multiple of 64.
at::Tensor gather_quantized(const at::Tensor& rows, RowType type, std::int64_t width,
                            const at::Tensor& slots, const at::Tensor& weights);
at::Tensor peer_gather_quantized(const at::Tensor& rows, RowType type, std::int64_t width,
                                 const at::Tensor& x, const at::Tensor& slots,
                                 const at::Tensor& weights);

// A gradient of pool rows that is never materialised: row s has, in columns [first_column,
// first_column + rows.size(1)), the sum over all (t, j) with slots[t, j] == s of weights[t, j] *
// rows[t]. slots [T, J] int64, weights [T, J] float32, rows [T, w] float32.
struct FactoredGradient {
  at::Tensor slots, weights, rows;
  std::int64_t first_column = 0;
};

// The same as a dense [num_slots, width] float32 tensor; for tests and small pools.
at::Tensor to_dense(const std::vector<FactoredGradient>& gradient, std::int64_t num_slots,
                    std::int64_t width);

// The contributions of many FactoredGradients put in order by slot: the touched slots, ascending,
// and for each the entries that make its gradient, in the order in which they came.
struct GroupedGradient {
  std::vector<FactoredGradient> parts;
  at::Tensor slots;    // [U] int64, ascending, each once
  at::Tensor begin;    // [U + 1] int64: entries of slots[u] are [begin[u], begin[u + 1])
  at::Tensor entries;  // [E] int64: flat index over the parts' weights, one part after the other
};
GroupedGradient group(std::vector<FactoredGradient> parts, std::int64_t num_slots,
                      std::int64_t width);
// Euclidean norm of the whole gradient, summed in float64 in slot order; never materialised.
double norm(const GroupedGradient& gradient, std::int64_t width);
double squared_norm(const GroupedGradient& gradient, std::int64_t width);
// [U] float64: the squared norm of each touched row's gradient.
at::Tensor row_squares(const GroupedGradient& gradient, std::int64_t width);

// What a row optimizer keeps, only for the rows: tables of as many rows as the pool. What an
// optimizer does not use is undefined.
struct RowState {
  at::Tensor exp_avg;     // [S, W] float32: running mean of the gradient
  at::Tensor exp_avg_sq;  // [S, W] float32: of its square; [S]: one number a row (row-wise)
  at::Tensor steps;       // [S] int32: how often the row was updated; dense AdamW: the step that
                          // the row is current to, 0 for a row that never had a gradient
  at::Tensor master;      // [S, W] float32: what a bfloat16 row is rounded from
};

struct RowAdamWParameters {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
  double gradient_scale = 1;  // multiplies the gradient first: clipping, averaging
  std::uint64_t rounding_seed =
      0;  // bfloat16 without master: stochastic rounding by (seed, slot, column)
  // Of a pool that a memory group holds: which part of it values are, so that what depends on slot
  // and column is what it would be in the whole; and of the row-wise optimizers, row_squares() of
  // the whole rows. Absent: values are the whole pool.
  PoolPart part = {};
  at::Tensor squares = {};
};

// One AdamW step [AdamW19] on the touched rows only, in place; bias correction by the row's own
// count of updates. Rows that are not touched keep their bits, values and state.
void update_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                  const RowAdamWParameters& parameters);
// The same with one second moment a row: v = beta2 v + (1 - beta2) mean over the row of g^2, state
// exp_avg, exp_avg_sq [S] and steps. With beta1 = 0 there is no exp_avg, and the state is eight
// bytes a row: v, and the count that its bias correction needs.
void update_rowwise_adamw(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                          const RowAdamWParameters& parameters);
// Row-wise Adagrad [Adagrad11], as FBGEMM's EXACT_ROWWISE_ADAGRAD, with decoupled weight decay: v
// += mean over the row of g^2; row = (1 - lr * weight_decay) * row - lr / (sqrt(v) + eps) * g.
// State: exp_avg_sq [S]; betas are not used.
void update_rowwise_adagrad(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                            const RowAdamWParameters& parameters);
// The touched rows become (1 - lr * weight_decay) * values - lr * gradient_scale * gradient.
void update_sgd(at::Tensor& values, RowState& state, const GroupedGradient& gradient,
                const RowAdamWParameters& parameters);

// Shell numbering of the grid: slot(i, j) = m*m + m + i - j with m = max(i, j).
std::int64_t slot_of(std::int64_t row, std::int64_t column);
std::pair<std::int64_t, std::int64_t> cell_of(std::int64_t slot);
// [n*n] int64: the slot of each row-major cell i * n + j; values_shell[perm] = values_row_major.
// Throws ValueError for n_keys that is negative or above 2^30.
at::Tensor row_major_slots(std::int64_t n_keys);

namespace reference {  // the same in plain ATen operations, for any device

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn);
at::Tensor dequantize_rows(const at::Tensor& rows, RowType type, std::int64_t width);
at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights);
at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights);

}  // namespace reference
}  // namespace memlayers

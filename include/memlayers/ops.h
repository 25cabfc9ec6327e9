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
#include <utility>

#include "memlayers/config.h"

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

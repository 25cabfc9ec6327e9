// SPDX-License-Identifier: Apache-2.0
// The arithmetic of a memory layer over raw pointers, once per instruction set. Kernels never
// thread, allocate, check or throw: the ops above them do. Widths and counts may be any number >=
// 0. Pointers need no alignment beyond their type's. A kernel's result depends on its arguments and
// the instruction set alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/bfloat16.h"

namespace memlayers::kernels {

// One AdamW step on one row [AdamW19]; all that does not depend on the column is computed by the
// caller.
//   g = gradient_scale * gradient;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   row = decay * row - step_size * m / (sqrt(v * v_correction) + eps)
struct AdamWStep {
  float beta1, beta2, eps;
  float decay;         // 1 - lr * weight_decay
  float step_size;     // lr / (1 - beta1^t)
  float v_correction;  // 1 / (1 - beta2^t)
  float gradient_scale;
  std::uint32_t rounding_key;  // of this row and step; see round_stochastic
};

struct SgdStep {
  float decay, lr, gradient_scale;  // row = decay * row - lr * gradient_scale * gradient
  std::uint32_t rounding_key;
};

// bfloat16 rows without a master copy are rounded stochastically: with h = hash32(rounding_key +
// column), the upper half of (bits of x) + (h & 0xffff) is kept (NaN and infinity stay what they
// are), so that the expectation of the rounded value is x. hash32 is the finalizer of MurmurHash3.
inline std::uint32_t hash32(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bU;
  x ^= x >> 13;
  x *= 0xc2b2ae35U;
  x ^= x >> 16;
  return x;
}

// Kernels over the pool's rows, for one element type. `stride` is the distance of rows in elements.
template <class Row>
struct RowKernels {
  // out[c] = sum over i < count of weights[i] * values[ids[i] * stride + c], c < width; in float32,
  // in the order of i for every column. Rows ahead are prefetched. out does not overlap values.
  void (*gather)(const Row* values, std::int64_t stride, const std::int64_t* ids,
                 const float* weights, std::int64_t count, std::int64_t width, float* out) noexcept;
  // The same, added to what out holds (out is the first term of the sum).
  void (*gather_add)(const Row* values, std::int64_t stride, const std::int64_t* ids,
                     const float* weights, std::int64_t count, std::int64_t width,
                     float* out) noexcept;
  // out[i] = sum over c < width of x[c] * values[ids[i] * stride + c], i < count: the gradient of
  // gather's weights, and PEER's first table.
  void (*dots)(const Row* values, std::int64_t stride, const std::int64_t* ids, std::int64_t count,
               std::int64_t width, const float* x, float* out) noexcept;
  // One optimizer step on one row. `master` is the float32 copy of the row that the step is applied
  // to (row then holds it rounded to nearest even), or null; always null for float32 rows.
  void (*adamw)(Row* row, float* master, float* m, float* v, const float* gradient,
                std::int64_t width, const AdamWStep& step) noexcept;
  void (*sgd)(Row* row, float* master, const float* gradient, std::int64_t width,
              const SgdStep& step) noexcept;
  // Rows [first, last) of a new table, contiguous at `rows` (the place of row `first`): normal
  // numbers of mean 0 and deviation `std`, from Philox4x32-10 [Philox11] with key `seed` and
  // counter (row, column / 4), by Box-Muller [BoxMuller58] in float64, rounded to float and then,
  // for bfloat16, to nearest even. The same bits on every instruction set.
  void (*normal)(Row* rows, std::int64_t width, std::int64_t first, std::int64_t last, double std,
                 std::uint64_t seed) noexcept;
};

struct Kernels {
  const char* isa;  // "portable", "avx2" or "avx512"

  // The k greatest of scores[0, n), best first; equal scores in the order of their index; NaN above
  // all numbers. best (k), index (k). Requires 1 <= k <= n. scratch: top_k_scratch_bytes(n, k),
  // aligned to 64. Vectors of scores that cannot enter are rejected by one comparison; never sorts
  // all n.
  void (*top_k)(const float* scores, std::int64_t n, std::int64_t k, float* best,
                std::int32_t* index, void* scratch) noexcept;

  // The k best of the k x k sums row_score[a] + col_score[b], best first, where both lists are
  // sorted as top_k leaves them: only pairs with (a + 1)(b + 1) <= k can win (Sec. 3.1 of [PK19]).
  // Equal sums in the order of (a, b). Requires k < 65536. slots (k): shell number of
  // (row_index[a], col_index[b]); scores (k). scratch: combine_scratch_bytes(k), aligned to 64.
  void (*combine)(const float* row_score, const std::int32_t* row_index, const float* col_score,
                  const std::int32_t* col_index, std::int64_t k, float* scores, std::int64_t* slots,
                  void* scratch) noexcept;

  // sum of x[c]^2 in float64
  double (*squared_norm)(const float* x, std::int64_t width) noexcept;

  RowKernels<float> f32;
  RowKernels<BFloat16> bf16;

  template <class Row>
  const RowKernels<Row>& rows() const;
};

template <>
inline const RowKernels<float>& Kernels::rows<float>() const {
  return f32;
}
template <>
inline const RowKernels<BFloat16>& Kernels::rows<BFloat16>() const {
  return bf16;
}

std::size_t top_k_scratch_bytes(std::int64_t n, std::int64_t k);
std::size_t combine_scratch_bytes(std::int64_t k);

std::span<const Kernels* const> supported();  // what this CPU can run, portable first
const Kernels& named(std::string_view isa);   // throws std::invalid_argument naming what is there
// The last of these, or the one that the environment variable MEMLAYERS_ISA names; throws
// std::invalid_argument (naming what is there) when this CPU cannot run that one. Chosen once.
const Kernels& active();

// Shell numbering of the grid (docs/formats.md): slot(i, j) = m*m + m + i - j with m = max(i, j).
constexpr std::int64_t slot_of(std::int64_t i, std::int64_t j) {
  const std::int64_t m = i > j ? i : j;
  return m * m + m + i - j;
}

}  // namespace memlayers::kernels

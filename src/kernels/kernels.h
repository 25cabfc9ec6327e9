// SPDX-License-Identifier: Apache-2.0
// The arithmetic of a memory layer over raw pointers, once per instruction set. Kernels never
// thread, allocate, check or throw: the ops above them do. Widths and counts may be any number >=
// 0. Pointers need no alignment beyond their type's. A kernel's result depends on its arguments and
// the instruction set alone.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/packed_weights.h"
#include "kernels/quantized.h"

namespace memlayers::kernels {

// One AdamW step on one row [AdamW19]; all that does not depend on the column is computed by the
// caller.
//   g = gradient_scale * (gradient_weight * gradient)
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   row = decay * row - step_size * m / (sqrt(v * v_correction) + eps)
struct AdamWStep {
  float beta1, beta2, eps;
  float decay;         // 1 - lr * weight_decay
  float step_size;     // lr / (1 - beta1^t)
  float v_correction;  // 1 / (1 - beta2^t)
  float gradient_scale;
  std::uint32_t rounding_key;  // of this row and step; see round_stochastic
  float gradient_weight = 1;   // this and gradient_scale round one after the other
};

struct SgdStep {
  // row = decay * row - lr * gradient_scale * (gradient_weight * gradient)
  float decay, lr, gradient_scale;
  std::uint32_t rounding_key;
  float gradient_weight = 1;
};

// One step of a row whose adaptive factor is one number for all columns, which the caller has put
// into step_size.
//   m = beta1 m + (1 - beta1) * gradient_scale * (gradient_weight * gradient)
//   row = decay * row - step_size * m
struct MomentumStep {
  float beta1, decay, step_size, gradient_scale;
  std::uint32_t rounding_key;
  float gradient_weight = 1;
};

// All AdamW steps that a row has missed, in which its gradient was zero, at once; where the numbers
// come from, and what they leave out: src/ops/update/missed_steps.h.
//   d_j = 1 / (1 + sqrt(v) * groups[j].inverse_eps)
//   row = decay * (row - m * sum over groups j and k < kTerms of groups[j].c[k] * d_j^(k + 1))
//   m = m_decay * m;  v = v_decay * v
struct CatchUpStep {
  static constexpr int kTerms = 8;
  struct Group {
    float inverse_eps;
    float c[kTerms];
  };
  const Group* groups;
  std::int64_t num_groups;
  float decay, m_decay, v_decay;
  std::uint32_t rounding_key;
};

// bfloat16 rows without a master copy are rounded stochastically: with h = hash32(rounding_key +
// column / 2) and r its lower half for even columns and its upper half for odd ones, the upper half
// of (bits of x) + r is kept (NaN and infinity stay what they are), so that the expectation of the
// rounded value is x. hash32 is the finalizer of MurmurHash3.
inline std::uint32_t hash32(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bU;
  x ^= x >> 13;
  x *= 0xc2b2ae35U;
  x ^= x >> 16;
  return x;
}

// Which part of each row a kernel reads: columns [first, first + width) of rows of `row_width`
// columns. Rows lie `stride` elements apart (bytes for Int8 and Int4, whose rows are
// quantized_row_bytes() long). Int4: first must be a multiple of kInt4Block.
struct RowSpan {
  std::int64_t stride, row_width, first, width;
};

// Columns of a row whose products dots() sums before it adds the sums of such blocks, pairwise: a
// cache line pair of float32, the thinnest slice of a row worth a process of its own.
constexpr std::int64_t kDotBlock = 32;

// Reads of the pool's rows, for one element type.
//
// Rows are read eight at a time (gather: sixteen of Int8 and Int4), side by side: that many streams
// keep more of the memory busy than one row after another (docs/performance.md), and while they are
// summed those after them are prefetched. So ids[count, count + following) must be readable too:
// rows that the caller will ask for next, of which nothing is used but the address.
template <class Row>
struct ReadKernels {
  // out[c] = sum over i < count of weights[i] * row(ids[i])[first + c], c < width; in float32. For
  // every column in the order of i, whatever the width. out does not overlap values.
  //
  // Int8 and Int4: up to sixteen rows at a time, from whole numbers. Weight times scale is rounded
  // to 16 bits beside the greatest of the sixteen (Int4: in each group of columns), which costs a
  // column at most a 65,534th of sixteen times the greatest |weight| * |number of a row|
  // (pairs.inl).
  void (*gather)(const Row* values, const RowSpan& span, const std::int64_t* ids,
                 const float* weights, std::int64_t count, std::int64_t following,
                 float* out) noexcept;
  // The same, added to what out holds (out is the first term of the sum).
  void (*gather_add)(const Row* values, const RowSpan& span, const std::int64_t* ids,
                     const float* weights, std::int64_t count, std::int64_t following,
                     float* out) noexcept;
  // out[i] = sum over c < width of x[c] * row(ids[i])[first + c], i < count: the gradient of
  // gather's weights, and PEER's first table. out[i] depends on its row alone, not on count.
  //
  // Float32 and bfloat16: the sum is that of a binary tree over the blocks of kDotBlock columns,
  // counted from span.first; a node that has no right half is its left half. So the dots of a span
  // of 2^l blocks that begins at a multiple of so many is a node of the whole row's tree, and
  // processes that hold slices of the columns sum, together, in the order of one.
  void (*dots)(const Row* values, const RowSpan& span, const std::int64_t* ids, std::int64_t count,
               std::int64_t following, const float* x, float* out) noexcept;
};

// Reads and updates, for the types that are trained.
template <class Row>
struct RowKernels : ReadKernels<Row> {
  // out[i] = sum over c < width of x[c] * rows[i * width + c], i < count, in float32: a matrix that
  // is read once, in its order but for eight rows side by side, which is how memory gives most.
  // out[i] depends on its row alone.
  void (*dots_in_order)(const Row* rows, std::int64_t width, std::int64_t count, const float* x,
                        float* out) noexcept;
  // out[t * out_stride + i] = the sum of dots_in_order, bit for bit, for the row i < count and the
  // vector at x + t * x_stride, t < vectors: for vectors so many that arithmetic costs more than
  // reading the matrix. Rows that lie in a cache: none are asked for.
  void (*products)(const Row* rows, std::int64_t width, std::int64_t count, const float* x,
                   std::int64_t x_stride, std::int64_t vectors, float* out,
                   std::int64_t out_stride) noexcept;
  // out[t * width + c] += sum over i < count of weights[t * stride + i] * rows[i * width + c], for
  // the vectors of weights t < vectors: for every column in the order of i, as gather_add sums.
  void (*weighted_sums_add)(const Row* rows, std::int64_t width, std::int64_t count,
                            const float* weights, std::int64_t stride, std::int64_t vectors,
                            float* out) noexcept;
  // One optimizer step on one row. `master` is the float32 copy of the row that the step is applied
  // to (row then holds it rounded to nearest even), or null; always null for float32 rows.
  void (*adamw)(Row* row, float* master, float* m, float* v, const float* gradient,
                std::int64_t width, const AdamWStep& step) noexcept;
  void (*sgd)(Row* row, float* master, const float* gradient, std::int64_t width,
              const SgdStep& step) noexcept;
  void (*momentum)(Row* row, float* master, float* m, const float* gradient, std::int64_t width,
                   const MomentumStep& step) noexcept;
  void (*catch_up)(Row* row, float* master, float* m, float* v, std::int64_t width,
                   const CatchUpStep& step) noexcept;
  // Rows [first, last) of a new table, contiguous at `rows` (the place of row `first`): normal
  // numbers of mean 0 and deviation `std`, from Philox4x32-10 [Philox11] with key `seed` and
  // counter (row, column / 4), by Box-Muller [BoxMuller58] in float64, rounded to float and then,
  // for bfloat16, to nearest even. The same bits on every instruction set. The rows are the columns
  // [first_column, first_column + width) of wider ones; first_column is a multiple of 4.
  void (*normal)(Row* rows, std::int64_t width, std::int64_t first, std::int64_t last, double std,
                 std::uint64_t seed, std::int64_t first_column) noexcept;
};

constexpr std::int64_t kScreenColumns = 64;

// Sub-keys of 8 bits, in the order in which BlockScreen reads them: groups of kScreenGroup keys,
// whose numbers lie side by side, four columns at a time: [groups, ceil(width / 4), kScreenGroup,
// 4]. The rest (groups * kScreenGroup): what a number stands for; bounds of what the scores lose a
// unit of the query's norm, and of a key's norm; -128 times the sum of its numbers.
constexpr std::int64_t kScreenGroup = 16;
constexpr float kMostScreened = 1e15F;  // norms below it, whose products are far from infinite
struct ScreenKeys {
  std::int64_t n, width;
  std::int8_t* numbers;
  float *unit, *error, *norm;
  std::int32_t* start;
};
// Queries of 8 bits, 128 added to each number: one every `stride` bytes, room for the width up to a
// multiple of 16 in each. What a number stands for; bounds of |q|, and of |q - q'|.
struct ScreenQueries {
  std::int64_t stride;
  std::uint8_t* numbers;
  float *unit, *norm, *error;
};

// Which of n sub-keys may be among the best k of a query, from products of 8-bit numbers: with the
// query q' and the key k' that the numbers stand for, |q.k - q'.k'| <= |q| |k - k'| + |q - q'|
// |k'|. For many queries at once, where a processor multiplies such numbers much faster than
// float32. Widths below 2^16, so that no sum overflows.
struct BlockScreen {
  // Packs the `count` <= kScreenGroup keys (count, width) that are group number `group`. Returns
  // whether all their norms are below kMostScreened: only then may the others be asked.
  bool (*pack_keys)(const float* keys, std::int64_t count, std::int64_t width, const ScreenKeys& to,
                    std::int64_t group) noexcept;
  // Packs a query (width) as number `at`.
  void (*pack_query)(const float* query, std::int64_t width, const ScreenQueries& to,
                     std::int64_t at) noexcept;
  // high (count, n): a bound that no score of a query exceeds, as float32 sums compute it.
  void (*bound)(const ScreenKeys& keys, const ScreenQueries& queries, std::int64_t count,
                float* high) noexcept;
  // index: those of high[0, n), all finite, whose score may be among the best k, ascending. Returns
  // their number, k at least. Requires query_norm < kMostScreened. index has room for n + 64;
  // scratch as top_k's.
  std::int64_t (*candidates)(const ScreenKeys& keys, float query_norm, float query_error,
                             const float* high, std::int64_t k, std::int32_t* index,
                             void* scratch) noexcept;
  // out[i] = the score of key index[i] of keys (n, width), i < count, from float32. out[i] depends
  // on its key and the query alone.
  void (*score)(const float* keys, std::int64_t width, const std::int32_t* index,
                std::int64_t count, const float* query, float* out) noexcept;
};

struct Kernels {
  const char* isa;  // "portable", "avx2", "avx512" or "avx512vnni"

  // The k greatest of scores[0, n), best first; equal scores in the order of their index; NaN above
  // all numbers. best (k), index (k). Requires 1 <= k <= n. scratch: top_k_scratch_bytes(n, k),
  // aligned to 64. Two passes over the scores: maxima of groups of them give a bound that about k
  // scores reach, the second pass keeps those. Never sorts all n.
  void (*top_k)(const float* scores, std::int64_t n, std::int64_t k, float* best,
                std::int32_t* index, void* scratch) noexcept;

  // The k best of the k x k sums row_score[a] + col_score[b], best first, where both lists are
  // sorted as top_k leaves them: only pairs with (a + 1)(b + 1) <= k can win (Sec. 3.1 of [PK19]).
  // Equal sums in the order of (a, b). Requires k < 65536. plan: combine_plan(k). slots (k): shell
  // number of (row_index[a], col_index[b]); scores (k). scratch: combine_scratch_bytes(k), aligned
  // to 64.
  void (*combine)(const float* row_score, const std::int32_t* row_index, const float* col_score,
                  const std::int32_t* col_index, std::int64_t k, const std::uint32_t* plan,
                  float* scores, std::int64_t* slots, void* scratch) noexcept;

  // out[i] = exp(scores[i] - scores[0]) / sum of all of these, where the best comes first, as
  // combine leaves them: NaN or infinity there makes all of them NaN. out may be scores. Error:
  // 1e-6 of exp of the rounded difference; differences below -87 count as -87.
  void (*softmax)(const float* scores, std::int64_t k, float* out) noexcept;
  // The same of n >= 1 scores in any order, from the greatest of them; NaN where one is not finite.
  void (*softmax_of_all)(const float* scores, std::int64_t n, float* out) noexcept;
  // out[i] = x[i] / (1 + exp(-x[i])), each from its x alone, to an error of 1e-6 of it or, where it
  // is below 2^-114, of 1e-33. out may be x.
  void (*silu)(const float* x, std::int64_t n, float* out) noexcept;

  // out[i] = sum over c < width of query[c] * (the 8-bit number in column c of row i), i < count,
  // for rows one after the other: whole numbers, the same on every instruction set. query: zeros
  // behind the width up to a multiple of kScreenColumns. Requires width < 2^17, so that no sum
  // overflows.
  void (*screen)(const Int8* rows, std::int64_t stride, std::int64_t count,
                 const std::int8_t* query, std::int64_t width, std::int32_t* out) noexcept;

  // Null where float32 products are as fast.
  const BlockScreen* block_screen;

  // The bits of f32.gather and f32.gather_add, for whole rows that lie in a cache: none are asked
  // for, which costs an instruction in three there.
  void (*gather_cached)(const float* values, std::int64_t width, const std::int64_t* ids,
                        const float* weights, std::int64_t count, float* out) noexcept;
  void (*gather_cached_add)(const float* values, std::int64_t width, const std::int64_t* ids,
                            const float* weights, std::int64_t count, float* out) noexcept;

  // out[t * out_stride + row] = the product of vector t < vectors with each row of tiles [first,
  // end) of the weights: of each group the whole sum, times both scales, summed in the order of the
  // groups. A number depends on its row and vector alone.
  void (*packed_products)(const PackedWeights& weights, std::int64_t first, std::int64_t end,
                          const PackedVectors& x, std::int64_t vectors, float* out,
                          std::int64_t out_stride) noexcept;
  // Vectors (vectors, width) as 8 bits.
  void (*pack_vectors)(const float* x, std::int64_t width, std::int64_t vectors,
                       const PackedVectors& to) noexcept;

  // sum of x[c]^2 in float64
  double (*squared_norm)(const float* x, std::int64_t width) noexcept;

  RowKernels<float> f32;
  RowKernels<BFloat16> bf16;
  ReadKernels<Int8> i8;
  ReadKernels<Int4> i4;

  template <class Row>
  const auto& rows() const {  // RowKernels<Row> or ReadKernels<Row>
    if constexpr (std::is_same_v<Row, float>) {
      return f32;
    } else if constexpr (std::is_same_v<Row, BFloat16>) {
      return bf16;
    } else if constexpr (std::is_same_v<Row, Int8>) {
      return i8;
    } else {
      static_assert(std::is_same_v<Row, Int4>);
      return i4;
    }
  }
};

std::size_t top_k_scratch_bytes(std::int64_t n, std::int64_t k);
std::size_t combine_scratch_bytes(std::int64_t k);
// The pairs (a, b) with (a + 1)(b + 1) <= k as a << 16 | b, a by a; k < 65536.
std::vector<std::uint32_t> combine_plan(std::int64_t k);

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
// The cell (i, j) of a slot >= 0.
inline std::pair<std::int64_t, std::int64_t> cell_of(std::int64_t slot) {
  auto m = static_cast<std::int64_t>(std::sqrt(static_cast<double>(slot)));
  if (slot >= std::int64_t{1} << 51) {  // the root may have been rounded to the next whole number
    while (m * m > slot) --m;
    while ((m + 1) * (m + 1) <= slot) ++m;
  }
  const std::int64_t d = slot - m * m;
  return d < m ? std::pair{d, m} : std::pair{m, 2 * m - d};
}

}  // namespace memlayers::kernels

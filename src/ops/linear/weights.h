// SPDX-License-Identifier: Apache-2.0
// The matrices of products: which type of numbers they hold is known here and nowhere above.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/packed_weights.h"

namespace memlayers::ops {

// How weights of one type are stored, rows of a matrix one behind the other, and multiplied. Sums
// are float32, and that of a row and a token depends on the two alone: not on what else is
// multiplied, nor on who does it. One object a type, for ever.
class WeightFormat {
 public:
  virtual std::int64_t row_bytes(std::int64_t in) const = 0;  // of a row of `in` numbers
  // Rows that stand side by side: products() begins at a multiple of so many.
  virtual std::int64_t rows_together() const { return 1; }
  // Whether tokens of this type can be multiplied.
  virtual bool takes(at::ScalarType tokens) const = 0;
  // The tokens x [T, in] as products() wants them, [T, ..], contiguous.
  virtual at::Tensor operand(const at::Tensor& x) const = 0;
  // out[t * out_stride + i] = row i . token t, for i < count and all tokens of `operand`. The rows
  // are read once, in their order, from memory; `count` of them stay in a cache where there are
  // several tokens.
  virtual void products(const std::byte* rows, std::int64_t in, std::int64_t count,
                        const at::Tensor& operand, float* out, std::int64_t out_stride) const = 0;

 protected:
  ~WeightFormat() = default;
};

struct Weights {
  // Of numbers [out, in]: float32 or bfloat16; those of another type have no format.
  explicit Weights(const at::Tensor& numbers);
  // Of 8 or 4 bits: bytes [tiles, tile] as kernels/packed_weights.h has them.
  Weights(const at::Tensor& tiles, kernels::WeightCode code, std::int64_t out, std::int64_t in);

  // Absent: plain numbers.
  std::optional<kernels::PackedWeights> packed() const;
  // Rows [n, in] in float32 of those that `rows` [n] int64 names, or all, which a packed matrix
  // stands for.
  at::Tensor unpacked(const at::Tensor& rows) const;
  at::Tensor unpacked() const;

  // Whether linear() and Product can multiply tokens of this type with them.
  bool take(at::ScalarType tokens) const { return format != nullptr && format->takes(tokens); }

  at::Tensor stored;  // [out, in], or tiles
  const WeightFormat* format;
  std::int64_t out, in;
  std::optional<kernels::WeightCode> code = {};
};

// x as float32 and back, contiguous, without the dispatcher, whose code is in no cache where
// weights have just been read. x and type: float32 or bfloat16.
at::Tensor as_float(const at::Tensor& x);
at::Tensor from_float(const at::Tensor& x, at::ScalarType type);
// Memory of this type on the CPU, likewise.
at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type = at::kFloat);

}  // namespace memlayers::ops

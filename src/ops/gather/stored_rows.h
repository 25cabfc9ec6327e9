// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "memlayers/config.h"

namespace memlayers::ops {

// The type of a table of rows; and the other way about, of numbers.
inline at::ScalarType element_type(RowType type) {
  if (is_quantized(type)) return at::kByte;
  return type == RowType::kFloat32 ? at::kFloat : at::kBFloat16;
}
inline RowType row_type(at::ScalarType type) {  // float32 or bfloat16
  return type == at::kFloat ? RowType::kFloat32 : RowType::kBFloat16;
}

// A table of rows as it is stored: numbers [S, width], or bytes [S, quantized_row_bytes(type,
// width)] that hold `width` numbers a row each.
struct StoredRows {
  at::Tensor data;
  RowType type;
  std::int64_t width;
};

// Rows wherever they are: what row `id` of an operator means is the `stride` elements (bytes, for
// rows of few bits) from data + id * stride on.
struct RowsView {
  const void* data;
  std::int64_t stride, width;
  RowType type;
};

inline RowsView view(const StoredRows& rows) {
  return {rows.data.const_data_ptr(), rows.data.size(1), rows.width, rows.type};
}

// The rows of a tensor of float32 or bfloat16, contiguous.
inline StoredRows stored_rows(const at::Tensor& values) {
  return {values.contiguous(), row_type(values.scalar_type()), values.size(1)};
}

inline RowType type_of_bits(std::int64_t bits) {
  return bits == 8 ? RowType::kInt8 : RowType::kInt4;
}
inline std::int64_t bits_of_type(RowType type) { return type == RowType::kInt8 ? 8 : 4; }

}  // namespace memlayers::ops

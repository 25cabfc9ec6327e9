// SPDX-License-Identifier: Apache-2.0
// Checks of arguments with one format of message: "<op>: expected <what>, got <what>".
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <initializer_list>

#include "kernels/quantized.h"
#include "memlayers/ops.h"

namespace memlayers::ops {

constexpr std::int64_t kMostWidth = std::int64_t{1} << 31;  // columns of a row

inline void check_dim(const char* op, const char* name, const at::Tensor& tensor,
                      std::int64_t dim) {
  TORCH_CHECK_VALUE(tensor.dim() == dim, op, ": expected ", name, " of ", dim,
                    " dimensions, got shape ", tensor.sym_sizes());
}

inline void check_type(const char* op, const char* name, const at::Tensor& tensor,
                       std::initializer_list<at::ScalarType> types) {
  for (at::ScalarType type : types) {
    if (tensor.scalar_type() == type) return;
  }
  TORCH_CHECK_TYPE(false, op, ": expected ", name, " of type ", at::ArrayRef<at::ScalarType>(types),
                   ", got ", tensor.scalar_type());
}

inline void check_same_shape(const char* op, const char* name, const at::Tensor& tensor,
                             const char* other_name, const at::Tensor& other) {
  TORCH_CHECK_VALUE(tensor.sym_sizes() == other.sym_sizes(), op, ": expected ", name,
                    " of the shape of ", other_name, ", ", other.sym_sizes(), ", got ",
                    tensor.sym_sizes());
}

// The arguments of gather; `width` of values is not restricted.
inline void check_gather(const char* op, const at::Tensor& values, const at::Tensor& slots,
                         const at::Tensor& weights) {
  check_dim(op, "values", values, 2);
  check_dim(op, "slots", slots, 2);
  check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  check_type(op, "slots", slots, {at::kLong});
  check_type(op, "weights", weights, {at::kFloat});
  check_same_shape(op, "weights", weights, "slots", slots);
}

// x of PEER beside rows of `width` columns.
inline void check_peer_x(const char* op, const at::Tensor& x, const at::Tensor& slots,
                         const c10::SymInt& width) {
  check_dim(op, "x", x, 2);
  check_type(op, "x", x, {at::kFloat});
  TORCH_CHECK_VALUE(x.sym_size(0) == slots.sym_size(0), op, ": expected x of ", slots.sym_size(0),
                    " tokens, as slots, got shape ", x.sym_sizes());
  TORCH_CHECK_VALUE(x.sym_size(1) < width, op, ": expected x narrower than a row of values (",
                    width, "), got shape ", x.sym_sizes());
}

// x of PEER beside rows of 4 bits, which are read from a block's first column on.
inline void check_int4_x(const char* op, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.sym_size(1) % kernels::kInt4Block == 0, op, ": expected x of a multiple of ",
                    kernels::kInt4Block, " columns for rows of 4 bits, got shape ", x.sym_sizes());
}

inline void check_peer_gather(const char* op, const at::Tensor& values, const at::Tensor& x,
                              const at::Tensor& slots, const at::Tensor& weights) {
  check_gather(op, values, slots, weights);
  check_peer_x(op, x, slots, values.sym_size(1));
}

// Rows of 8 or 4 bits: [S, bytes] uint8 as quantize_rows() makes them of `width` columns.
inline void check_quantized(const char* op, const at::Tensor& rows, std::int64_t bits,
                            std::int64_t width) {
  TORCH_CHECK_VALUE(bits == 8 || bits == 4, op, ": expected bits 8 or 4, got ", bits);
  TORCH_CHECK_VALUE(width >= 1 && width <= kMostWidth, op, ": expected width in [1, ", kMostWidth,
                    "], got ", width);
  check_dim(op, "rows", rows, 2);
  check_type(op, "rows", rows, {at::kByte});
  const std::int64_t bytes =
      quantized_row_bytes(bits == 8 ? RowType::kInt8 : RowType::kInt4, width);
  TORCH_CHECK_VALUE(rows.sym_size(1) == bytes, op, ": expected rows of ", bytes, " bytes for ",
                    width, " columns of ", bits, " bits, got shape ", rows.sym_sizes());
}

inline void check_gather_quantized(const char* op, const at::Tensor& rows, const at::Tensor& slots,
                                   const at::Tensor& weights, std::int64_t bits,
                                   std::int64_t width) {
  check_quantized(op, rows, bits, width);
  check_dim(op, "slots", slots, 2);
  check_type(op, "slots", slots, {at::kLong});
  check_type(op, "weights", weights, {at::kFloat});
  check_same_shape(op, "weights", weights, "slots", slots);
}

inline void check_peer_gather_quantized(const char* op, const at::Tensor& rows, const at::Tensor& x,
                                        const at::Tensor& slots, const at::Tensor& weights,
                                        std::int64_t bits, std::int64_t width) {
  check_gather_quantized(op, rows, slots, weights, bits, width);
  check_peer_x(op, x, slots, width);
  if (bits == 4) check_int4_x(op, x);
}

// What came back for an output [tokens, width].
inline void check_grad(const char* op, const at::Tensor& grad, std::int64_t tokens,
                       std::int64_t width) {
  check_type(op, "grad", grad, {at::kFloat});
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.size(0) == tokens && grad.size(1) == width, op,
                    ": expected grad [", tokens, ", ", width, "], got ", grad.sizes());
}

inline void check_lookup(const char* op, const at::Tensor& query, const at::Tensor& keys) {
  check_dim(op, "query", query, 3);
  check_dim(op, "keys", keys, 4);
  check_type(op, "query", query, {at::kFloat, at::kBFloat16});
  check_type(op, "keys", keys, {query.scalar_type()});
  TORCH_CHECK_VALUE(keys.sym_size(1) == 2 && keys.sym_size(0) == query.sym_size(1) &&
                        keys.sym_size(3) * 2 == query.sym_size(2),
                    op, ": expected keys [H, 2, n, d/2] for a query [T, H, d], got keys ",
                    keys.sym_sizes(), " and query ", query.sym_sizes());
}

inline void check_knn(const char* op, std::int64_t knn, const c10::SymInt& n_keys) {
  constexpr std::int64_t kMostKnn = 65535;  // places in the k x k grid are numbers of 32 bits
  TORCH_CHECK_VALUE(knn >= 1 && n_keys >= knn && knn <= kMostKnn, op,
                    ": expected knn in [1, n_keys = ", n_keys, "] and at most ", kMostKnn, ", got ",
                    knn);
}

// Every slot in [0, num_slots); one pass over 8 bytes a row read.
void check_slots(const char* op, const at::Tensor& slots, std::int64_t num_slots);

}  // namespace memlayers::ops

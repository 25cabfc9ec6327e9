// SPDX-License-Identifier: Apache-2.0
// Checks of arguments with one format of message: "<op>: expected <what>, got <what>". Those of the
// operators themselves are declared in operators.h (namespace check) and made of these.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <initializer_list>

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

struct NamedTensor {
  const char* name;
  const at::Tensor& tensor;
};
// All on the device of the first, and dense: a sparse one has no memory of the shape it says.
void check_together(const char* op, std::initializer_list<NamedTensor> tensors);
// All dense in main memory; for what has no version for other devices.
void check_cpu(const char* op, std::initializer_list<NamedTensor> tensors);

// The arguments of gather; `width` of values is not restricted.
void check_gather(const char* op, const at::Tensor& values, const at::Tensor& slots,
                  const at::Tensor& weights);

// x of PEER beside rows of `width` columns.
void check_peer_x(const char* op, const at::Tensor& x, const at::Tensor& slots,
                  const c10::SymInt& width);
// x of PEER beside rows of 4 bits, which are read from a block's first column on.
void check_int4_x(const char* op, const at::Tensor& x);

void check_peer_gather(const char* op, const at::Tensor& values, const at::Tensor& x,
                       const at::Tensor& slots, const at::Tensor& weights);

// Rows of 8 or 4 bits: [S, bytes] uint8 as quantize_rows() makes them of `width` columns.
void check_quantized(const char* op, const at::Tensor& rows, std::int64_t bits, std::int64_t width);

// What came back for an output [tokens, width].
void check_grad(const char* op, const at::Tensor& grad, const c10::SymInt& tokens,
                const c10::SymInt& width);

void check_lookup(const char* op, const at::Tensor& query, const at::Tensor& keys);
void check_knn(const char* op, std::int64_t knn, const c10::SymInt& n_keys);

// Every slot in [0, num_slots); one pass over 8 bytes a row read. Slots must be on the CPU.
void check_slots(const char* op, const at::Tensor& slots, std::int64_t num_slots);

}  // namespace memlayers::ops

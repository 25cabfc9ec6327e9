// SPDX-License-Identifier: Apache-2.0
// Shapes and checks only: what fake tensors (torch.compile) run.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace memlayers::ops {

namespace meta {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  check_lookup("lookup", query, keys);
  check_knn("lookup", knn, keys.sym_size(2));
  const c10::SymInt shape[3] = {query.sym_size(0), query.sym_size(1), knn};
  return {at::empty_symint(shape, query.options().dtype(at::kFloat)),
          at::empty_symint(shape, query.options().dtype(at::kLong))};
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn) {
  return lookup(query, keys, knn);
}

std::tuple<at::Tensor, at::Tensor> lookup_backward(const at::Tensor&, const at::Tensor& query,
                                                   const at::Tensor& keys, const at::Tensor&) {
  return {at::empty_like(query, at::MemoryFormat::Contiguous),
          at::empty_like(keys, at::MemoryFormat::Contiguous)};
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool) {
  check_gather("gather", values, slots, weights);
  return at::empty_symint({slots.sym_size(0), values.sym_size(1)}, weights.options());
}

at::Tensor gather_backward_weights(const at::Tensor& grad, const at::Tensor&,
                                   const at::Tensor& slots) {
  return at::empty_symint(slots.sym_sizes(), grad.options());
}

at::Tensor gather_backward_values(const at::Tensor&, const at::Tensor& values, const at::Tensor&,
                                  const at::Tensor&, bool sparse_grad) {
  TORCH_CHECK_VALUE(
      !sparse_grad,
      "gather: expected sparse_grad=False under fake tensors (torch.compile), got True");
  return at::empty_like(values, at::MemoryFormat::Contiguous);
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool) {
  check_peer_gather("peer_gather", values, x, slots, weights);
  return at::empty_symint({slots.sym_size(0), values.sym_size(1) - x.sym_size(1)}, x.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> peer_gather_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor& x, const at::Tensor&,
    const at::Tensor& weights) {
  const auto like = [](const at::Tensor& t) {
    return at::empty_like(t, at::MemoryFormat::Contiguous);
  };
  return {like(x), like(weights), like(weights), like(weights)};
}

at::Tensor peer_gather_backward_values(const at::Tensor&, const at::Tensor& values,
                                       const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                       const at::Tensor&, bool sparse_grad) {
  TORCH_CHECK_VALUE(
      !sparse_grad,
      "peer_gather: expected sparse_grad=False under fake tensors (torch.compile), got True");
  return at::empty_like(values, at::MemoryFormat::Contiguous);
}

at::Tensor gather_quantized(const at::Tensor& rows, const at::Tensor& slots,
                            const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  check_gather_quantized("gather_quantized", rows, slots, weights, bits, width);
  return at::empty_symint({slots.sym_size(0), width}, weights.options());
}

at::Tensor gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor&,
                                             const at::Tensor& slots, std::int64_t, std::int64_t) {
  return at::empty_symint(slots.sym_sizes(), grad.options());
}

at::Tensor peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x,
                                 const at::Tensor& slots, const at::Tensor& weights,
                                 std::int64_t bits, std::int64_t width) {
  check_peer_gather_quantized("peer_gather_quantized", rows, x, slots, weights, bits, width);
  return at::empty_symint({slots.sym_size(0), width - x.sym_size(1)}, x.options());
}

std::tuple<at::Tensor, at::Tensor> peer_gather_quantized_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor& x, const at::Tensor&,
    const at::Tensor& weights, std::int64_t, std::int64_t) {
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_like(weights, at::MemoryFormat::Contiguous)};
}

}  // namespace meta
}  // namespace memlayers::ops

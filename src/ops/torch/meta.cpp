// SPDX-License-Identifier: Apache-2.0
// Shapes only: what fake tensors (torch.compile) run.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/torch/operators.h"

namespace memlayers::ops {

namespace meta {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor&,
                                          std::int64_t knn) {
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
                       const at::Tensor&, bool) {
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

at::Tensor gather_quantized(const at::Tensor&, const at::Tensor& slots, const at::Tensor& weights,
                            std::int64_t, std::int64_t width) {
  return at::empty_symint({slots.sym_size(0), width}, weights.options());
}

at::Tensor gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor&,
                                             const at::Tensor& slots, std::int64_t, std::int64_t) {
  return at::empty_symint(slots.sym_sizes(), grad.options());
}

at::Tensor peer_gather_quantized(const at::Tensor&, const at::Tensor& x, const at::Tensor& slots,
                                 const at::Tensor&, std::int64_t, std::int64_t width) {
  return at::empty_symint({slots.sym_size(0), width - x.sym_size(1)}, x.options());
}

std::tuple<at::Tensor, at::Tensor> peer_gather_quantized_backward(
    const at::Tensor&, const at::Tensor&, const at::Tensor& x, const at::Tensor&,
    const at::Tensor& weights, std::int64_t, std::int64_t) {
  return {at::empty_like(x, at::MemoryFormat::Contiguous),
          at::empty_like(weights, at::MemoryFormat::Contiguous)};
}

at::Tensor row_squares(at::TensorList, at::TensorList, at::IntArrayRef, const at::Tensor& slots,
                       const at::Tensor&, const at::Tensor&, std::int64_t) {
  return at::empty_symint(slots.sym_sizes(), slots.options().dtype(at::kDouble));
}

void update_adamw(at::Tensor&, at::Tensor&, at::Tensor&, at::Tensor&,
                  const std::optional<at::Tensor>&, at::TensorList, at::TensorList, at::IntArrayRef,
                  const at::Tensor&, const at::Tensor&, const at::Tensor&, double, double, double,
                  double, double, double, std::int64_t) {}

void update_rowwise_adamw(at::Tensor&, const std::optional<at::Tensor>&, at::Tensor&, at::Tensor&,
                          const std::optional<at::Tensor>&, at::TensorList, at::TensorList,
                          at::IntArrayRef, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                          double, double, double, double, double, double, std::int64_t) {}

void update_rowwise_adagrad(at::Tensor&, at::Tensor&, const std::optional<at::Tensor>&,
                            at::TensorList, at::TensorList, at::IntArrayRef, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&, double, double, double, double,
                            std::int64_t) {}

void update_sgd(at::Tensor&, const std::optional<at::Tensor>&, at::TensorList, at::TensorList,
                at::IntArrayRef, const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                double, double, std::int64_t) {}

}  // namespace meta
}  // namespace memlayers::ops

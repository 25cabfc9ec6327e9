// SPDX-License-Identifier: Apache-2.0
// Calls of the operators through torch's dispatcher, and the public functions that are made of
// them.
#include <ATen/core/dispatch/Dispatcher.h>

#include "memlayers/ops.h"
#include "ops/gather/stored_rows.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace ops {

template <class Result, class... Arguments, Result (*function)(Arguments...)>
Result Call<function>::operator()(Arguments... arguments) const {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(name, "")
                             .template typed<Result(Arguments...)>();
  return op.call(std::forward<Arguments>(arguments)...);
}

#define MEMLAYERS_INSTANTIATE(name) template struct Call<&cpu::name>;
MEMLAYERS_OPERATORS(MEMLAYERS_INSTANTIATE)
#undef MEMLAYERS_INSTANTIATE

}  // namespace ops

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  auto [scores, slots] = ops::dispatch::lookup(query, keys, knn);
  return {slots, scores};
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn) {
  auto [weights, slots] = ops::dispatch::lookup_softmax(query, keys, knn);
  return {slots, weights};
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool sparse_grad) {
  return ops::dispatch::gather(values, slots, weights, sparse_grad);
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool sparse_grad) {
  return ops::dispatch::peer_gather(values, x, slots, weights, sparse_grad);
}

at::Tensor gather_quantized(const at::Tensor& rows, RowType type, std::int64_t width,
                            const at::Tensor& slots, const at::Tensor& weights) {
  return ops::dispatch::gather_quantized(rows, slots, weights, ops::bits_of_type(type), width);
}

at::Tensor peer_gather_quantized(const at::Tensor& rows, RowType type, std::int64_t width,
                                 const at::Tensor& x, const at::Tensor& slots,
                                 const at::Tensor& weights) {
  return ops::dispatch::peer_gather_quantized(rows, x, slots, weights, ops::bits_of_type(type),
                                              width);
}

}  // namespace memlayers

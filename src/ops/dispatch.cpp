// SPDX-License-Identifier: Apache-2.0
// Calls of the operators through torch's dispatcher: by device, under autograd, seen by
// torch.compile.
#include <ATen/core/dispatch/Dispatcher.h>

#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/stored_rows.h"

namespace memlayers {
namespace ops::dispatch {
namespace {

// The operator of a name, of the type of its implementation for the CPU.
template <class Function>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace

#define MEMLAYERS_CALL(name, ...)                                        \
  static const auto op = find<decltype(cpu::name)>("memlayers::" #name); \
  return op.call(__VA_ARGS__);

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn){
    MEMLAYERS_CALL(lookup, query, keys,
                   knn)} std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query,
                                                                           const at::Tensor& keys,
                                                                           std::int64_t knn){
    MEMLAYERS_CALL(
        lookup_softmax, query, keys,
        knn)} std::tuple<at::Tensor, at::Tensor> lookup_backward(const at::Tensor& grad_scores,
                                                                 const at::Tensor& query,
                                                                 const at::Tensor& keys,
                                                                 const at::Tensor& slots){
    MEMLAYERS_CALL(lookup_backward, grad_scores, query, keys, slots)} at::Tensor
    gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
           bool sparse_grad){MEMLAYERS_CALL(gather, values, slots, weights, sparse_grad)} at::Tensor
    gather_backward_weights(const at::Tensor& grad, const at::Tensor& values,
                            const at::Tensor& slots){
        MEMLAYERS_CALL(gather_backward_weights, grad, values, slots)} at::Tensor
    gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                           const at::Tensor& slots, const at::Tensor& weights,
                           bool sparse_grad){MEMLAYERS_CALL(gather_backward_values, grad, values,
                                                            slots, weights, sparse_grad)} at::Tensor
    peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                const at::Tensor& weights, bool sparse_grad){MEMLAYERS_CALL(
        peer_gather, values, x, slots, weights,
        sparse_grad)} std::tuple<at::Tensor, at::Tensor, at::Tensor,
                                 at::Tensor> peer_gather_backward(const at::Tensor& grad,
                                                                  const at::Tensor& values,
                                                                  const at::Tensor& x,
                                                                  const at::Tensor& slots,
                                                                  const at::Tensor& weights){
        MEMLAYERS_CALL(peer_gather_backward, grad, values, x, slots, weights)} at::Tensor
    peer_gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                const at::Tensor& x, const at::Tensor& slots,
                                const at::Tensor& u_factors, const at::Tensor& v_factors,
                                bool sparse_grad){MEMLAYERS_CALL(peer_gather_backward_values, grad,
                                                                 values, x, slots, u_factors,
                                                                 v_factors, sparse_grad)} at::Tensor
    gather_quantized(const at::Tensor& rows, const at::Tensor& slots, const at::Tensor& weights,
                     std::int64_t bits, std::int64_t width){
        MEMLAYERS_CALL(gather_quantized, rows, slots, weights, bits, width)} at::Tensor
    gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor& rows,
                                      const at::Tensor& slots, std::int64_t bits,
                                      std::int64_t width){
        MEMLAYERS_CALL(gather_quantized_backward_weights, grad, rows, slots, bits,
                       width)} at::Tensor
    peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots,
                          const at::Tensor& weights, std::int64_t bits,
                          std::int64_t width){MEMLAYERS_CALL(
        peer_gather_quantized, rows, x, slots, weights, bits,
        width)} std::tuple<at::Tensor,
                           at::Tensor> peer_gather_quantized_backward(const at::Tensor& grad,
                                                                      const at::Tensor& rows,
                                                                      const at::Tensor& x,
                                                                      const at::Tensor& slots,
                                                                      const at::Tensor& weights,
                                                                      std::int64_t bits,
                                                                      std::int64_t width) {
  MEMLAYERS_CALL(peer_gather_quantized_backward, grad, rows, x, slots, weights, bits, width)
}

#undef MEMLAYERS_CALL

}  // namespace ops::dispatch

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

// SPDX-License-Identifier: Apache-2.0
// The operators as functions below autograd. Each exists twice: for the CPU on our kernels, and in
// namespace composite in plain ATen, for any other device. register.cpp hands both to the
// dispatcher; everything else calls them through it (namespace dispatch), so that torch.compile
// sees them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>

#define MEMLAYERS_OPERATORS(_)                                                                     \
  /* scores, slots: the order of torch.topk, and the one that torch.library.opcheck can add */     \
  _(lookup, (std::tuple<at::Tensor, at::Tensor>),                                                  \
    (const at::Tensor& query, const at::Tensor& keys, std::int64_t knn))                           \
  /* softmax of the scores, slots */                                                               \
  _(lookup_softmax, (std::tuple<at::Tensor, at::Tensor>),                                          \
    (const at::Tensor& query, const at::Tensor& keys, std::int64_t knn))                           \
  /* grad_query, grad_keys */                                                                      \
  _(lookup_backward, (std::tuple<at::Tensor, at::Tensor>),                                         \
    (const at::Tensor& grad_scores, const at::Tensor& query, const at::Tensor& keys,               \
     const at::Tensor& slots))                                                                     \
  _(gather, (at::Tensor),                                                                          \
    (const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,                 \
     bool sparse_grad))                                                                            \
  _(gather_backward_weights, (at::Tensor),                                                         \
    (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& slots))                   \
  _(gather_backward_values, (at::Tensor),                                                          \
    (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& slots,                    \
     const at::Tensor& weights, bool sparse_grad))                                                 \
  _(peer_gather, (at::Tensor),                                                                     \
    (const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,                       \
     const at::Tensor& weights, bool sparse_grad))                                                 \
  /* grad_x, grad_weights, and the factors of the row gradients: of U with x, of V with grad */    \
  _(peer_gather_backward, (std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>),            \
    (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x,                        \
     const at::Tensor& slots, const at::Tensor& weights))                                          \
  _(peer_gather_backward_values, (at::Tensor),                                                     \
    (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x,                        \
     const at::Tensor& slots, const at::Tensor& u_factors, const at::Tensor& v_factors,            \
     bool sparse_grad))                                                                            \
  /* rows of 8 or 4 bits, which are not differentiated */                                          \
  _(gather_quantized, (at::Tensor),                                                                \
    (const at::Tensor& rows, const at::Tensor& slots, const at::Tensor& weights,                   \
     std::int64_t bits, std::int64_t width))                                                       \
  _(gather_quantized_backward_weights, (at::Tensor),                                               \
    (const at::Tensor& grad, const at::Tensor& rows, const at::Tensor& slots, std::int64_t bits,   \
     std::int64_t width))                                                                          \
  _(peer_gather_quantized, (at::Tensor),                                                           \
    (const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots,                         \
     const at::Tensor& weights, std::int64_t bits, std::int64_t width))                            \
  /* grad_x, grad_weights */                                                                       \
  _(peer_gather_quantized_backward, (std::tuple<at::Tensor, at::Tensor>),                          \
    (const at::Tensor& grad, const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots, \
     const at::Tensor& weights, std::int64_t bits, std::int64_t width))

namespace memlayers::ops {

#define MEMLAYERS_UNWRAP(...) __VA_ARGS__
#define MEMLAYERS_DECLARE(name, result, arguments) MEMLAYERS_UNWRAP result name arguments;

namespace cpu {
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}
namespace composite {
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}
namespace meta {  // shapes only, for fake tensors
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}
namespace dispatch {
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}

#undef MEMLAYERS_DECLARE

}  // namespace memlayers::ops

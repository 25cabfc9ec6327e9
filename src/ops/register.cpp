// SPDX-License-Identifier: Apache-2.0
// torch.ops.memlayers.*: schemas, implementations, autograd.
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torch/version.h>

#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/single_rows.h"
#include "ops/snapshot_rows.h"

namespace memlayers::ops {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class Lookup : public torch::autograd::Function<Lookup> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& query,
                               const at::Tensor& keys, std::int64_t knn) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [scores, slots] = dispatch::lookup(query, keys, knn);
    context->save_for_backward({query, keys, slots});
    context->mark_non_differentiable({slots});
    return {scores, slots};
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    auto [query, keys] =
        dispatch::lookup_backward(grads[0].contiguous(), saved[0], saved[1], saved[2]);
    return {query, keys, {}};
  }
};

class LookupSoftmax : public torch::autograd::Function<LookupSoftmax> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& query,
                               const at::Tensor& keys, std::int64_t knn) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [weights, slots] = dispatch::lookup_softmax(query, keys, knn);
    context->save_for_backward({query, keys, slots, weights});
    context->mark_non_differentiable({slots});
    return {weights, slots};
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& weights = saved[3];
    const at::Tensor grad_scores = weights * (grads[0] - (grads[0] * weights).sum(-1, true));
    auto [query, keys] = dispatch::lookup_backward(grad_scores, saved[0], saved[1], saved[2]);
    return {query, keys, {}};
  }
};

class Gather : public torch::autograd::Function<Gather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& values,
                            const at::Tensor& slots, const at::Tensor& weights, bool sparse_grad) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({values, slots, weights});
    context->saved_data["sparse_grad"] = sparse_grad;
    return dispatch::gather(values, slots, weights, sparse_grad);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor values, weights;
    if (context->needs_input_grad(0)) {
      values = dispatch::gather_backward_values(grad, saved[0], saved[1], saved[2],
                                                context->saved_data["sparse_grad"].toBool());
    }
    // The index counts tensor inputs only: values, slots, weights.
    if (context->needs_input_grad(2)) {
      weights = dispatch::gather_backward_weights(grad, saved[0], saved[1]);
    }
    return {values, {}, weights, {}};
  }
};

class PeerGather : public torch::autograd::Function<PeerGather> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& values, const at::Tensor& x,
                            const at::Tensor& slots, const at::Tensor& weights, bool sparse_grad) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({values, x, slots, weights});
    context->saved_data["sparse_grad"] = sparse_grad;
    return dispatch::peer_gather(values, x, slots, weights, sparse_grad);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor grad = grads[0].contiguous();
    auto [x, weights, u_factors, v_factors] =
        dispatch::peer_gather_backward(grad, saved[0], saved[1], saved[2], saved[3]);
    at::Tensor values;
    if (context->needs_input_grad(0)) {
      values = dispatch::peer_gather_backward_values(grad, saved[0], saved[1], saved[2], u_factors,
                                                     v_factors,
                                                     context->saved_data["sparse_grad"].toBool());
    }
    return {values, x, {}, weights, {}};
  }
};

class GatherQuantized : public torch::autograd::Function<GatherQuantized> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& slots, const at::Tensor& weights, std::int64_t bits,
                            std::int64_t width) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({rows, slots});
    context->saved_data["bits"] = bits;
    context->saved_data["width"] = width;
    return dispatch::gather_quantized(rows, slots, weights, bits, width);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor weights = dispatch::gather_quantized_backward_weights(
        grads[0].contiguous(), saved[0], saved[1], context->saved_data["bits"].toInt(),
        context->saved_data["width"].toInt());
    return {{}, {}, weights, {}, {}};
  }
};

class PeerGatherQuantized : public torch::autograd::Function<PeerGatherQuantized> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& x,
                            const at::Tensor& slots, const at::Tensor& weights, std::int64_t bits,
                            std::int64_t width) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({rows, x, slots, weights});
    context->saved_data["bits"] = bits;
    context->saved_data["width"] = width;
    return dispatch::peer_gather_quantized(rows, x, slots, weights, bits, width);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    auto [x, weights] = dispatch::peer_gather_quantized_backward(
        grads[0].contiguous(), saved[0], saved[1], saved[2], saved[3],
        context->saved_data["bits"].toInt(), context->saved_data["width"].toInt());
    return {{}, x, {}, weights, {}, {}};
  }
};

std::tuple<at::Tensor, at::Tensor> lookup_autograd(const at::Tensor& query, const at::Tensor& keys,
                                                   std::int64_t knn) {
  variable_list out = Lookup::apply(query, keys, knn);
  return {out[0], out[1]};
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax_autograd(const at::Tensor& query,
                                                           const at::Tensor& keys,
                                                           std::int64_t knn) {
  variable_list out = LookupSoftmax::apply(query, keys, knn);
  return {out[0], out[1]};
}

at::Tensor gather_quantized_autograd(const at::Tensor& rows, const at::Tensor& slots,
                                     const at::Tensor& weights, std::int64_t bits,
                                     std::int64_t width) {
  return GatherQuantized::apply(rows, slots, weights, bits, width);
}

at::Tensor peer_gather_quantized_autograd(const at::Tensor& rows, const at::Tensor& x,
                                          const at::Tensor& slots, const at::Tensor& weights,
                                          std::int64_t bits, std::int64_t width) {
  return PeerGatherQuantized::apply(rows, x, slots, weights, bits, width);
}

at::Tensor gather_autograd(const at::Tensor& values, const at::Tensor& slots,
                           const at::Tensor& weights, bool sparse_grad) {
  return Gather::apply(values, slots, weights, sparse_grad);
}

at::Tensor peer_gather_autograd(const at::Tensor& values, const at::Tensor& x,
                                const at::Tensor& slots, const at::Tensor& weights,
                                bool sparse_grad) {
  return PeerGather::apply(values, x, slots, weights, sparse_grad);
}

// Python looks for this in the file before it loads it: another torch would crash, not complain.
extern "C" [[gnu::used, gnu::visibility("default")]] const char memlayers_torch_version[] =
    "memlayers built with torch " TORCH_VERSION;

#define MEMLAYERS_IMPL(name, result, parameters) m.impl(#name, &MEMLAYERS_BACKEND::name);

}  // namespace

TORCH_LIBRARY(memlayers, m) {
  m.def("lookup(Tensor query, Tensor keys, int knn) -> (Tensor scores, Tensor slots)");
  m.def("lookup_softmax(Tensor query, Tensor keys, int knn) -> (Tensor weights, Tensor slots)");
  m.def(
      "lookup_backward(Tensor grad_scores, Tensor query, Tensor keys, Tensor slots) -> "
      "(Tensor grad_query, Tensor grad_keys)");
  m.def("gather(Tensor values, Tensor slots, Tensor weights, bool sparse_grad=False) -> Tensor");
  m.def("read_store(str folder) -> (Tensor, Tensor, Tensor)", &memlayers::ops::read_store);
  m.def("read_store_rows(str folder, Tensor slots) -> Tensor", &memlayers::ops::read_store_rows);
  m.def("write_store_row(str folder, int slot, Tensor row) -> str",
        &memlayers::ops::write_store_row);
  m.def("gather_backward_weights(Tensor grad, Tensor values, Tensor slots) -> Tensor");
  m.def(
      "gather_backward_values(Tensor grad, Tensor values, Tensor slots, Tensor weights, "
      "bool sparse_grad=False) -> Tensor");
  m.def(
      "peer_gather(Tensor values, Tensor x, Tensor slots, Tensor weights, "
      "bool sparse_grad=False) -> Tensor");
  m.def(
      "peer_gather_backward(Tensor grad, Tensor values, Tensor x, Tensor slots, Tensor weights) -> "
      "(Tensor grad_x, Tensor grad_weights, Tensor u_factors, Tensor v_factors)");
  m.def(
      "peer_gather_backward_values(Tensor grad, Tensor values, Tensor x, Tensor slots, "
      "Tensor u_factors, Tensor v_factors, bool sparse_grad=False) -> Tensor");
  m.def(
      "gather_quantized(Tensor rows, Tensor slots, Tensor weights, int bits, int width) -> Tensor");
  m.def(
      "gather_quantized_backward_weights(Tensor grad, Tensor rows, Tensor slots, int bits, "
      "int width) -> Tensor");
  m.def(
      "peer_gather_quantized(Tensor rows, Tensor x, Tensor slots, Tensor weights, int bits, "
      "int width) -> Tensor");
  m.def(
      "peer_gather_quantized_backward(Tensor grad, Tensor rows, Tensor x, Tensor slots, "
      "Tensor weights, int bits, int width) -> (Tensor grad_x, Tensor grad_weights)");
}

#define MEMLAYERS_BACKEND cpu
TORCH_LIBRARY_IMPL(memlayers, CPU, m){MEMLAYERS_OPERATORS(MEMLAYERS_IMPL)}
#undef MEMLAYERS_BACKEND

#define MEMLAYERS_BACKEND composite
TORCH_LIBRARY_IMPL(memlayers, CompositeExplicitAutograd, m){MEMLAYERS_OPERATORS(MEMLAYERS_IMPL)}
#undef MEMLAYERS_BACKEND

#define MEMLAYERS_BACKEND meta
TORCH_LIBRARY_IMPL(memlayers, Meta, m){MEMLAYERS_OPERATORS(MEMLAYERS_IMPL)}
#undef MEMLAYERS_BACKEND

TORCH_LIBRARY_IMPL(memlayers, Autograd, m) {
  m.impl("lookup", &lookup_autograd);
  m.impl("lookup_softmax", &lookup_softmax_autograd);
  m.impl("gather", &gather_autograd);
  m.impl("peer_gather", &peer_gather_autograd);
  m.impl("gather_quantized", &gather_quantized_autograd);
  m.impl("peer_gather_quantized", &peer_gather_quantized_autograd);
  // A second derivative is an error, not a silent zero.
  for (const char* name : {"lookup_backward", "gather_backward_weights", "gather_backward_values",
                           "peer_gather_backward", "peer_gather_backward_values",
                           "gather_quantized_backward_weights", "peer_gather_quantized_backward"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace memlayers::ops

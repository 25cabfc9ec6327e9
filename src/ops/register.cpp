// SPDX-License-Identifier: Apache-2.0
// torch.ops.memlayers.*: schemas, dispatch by device, fake tensors, autograd.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torch/version.h>

#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace memlayers::ops {

namespace dispatch {

#define MEMLAYERS_CALL(name, result, parameters, ...)                      \
  MEMLAYERS_UNWRAP result name parameters {                                \
    static const auto op = c10::Dispatcher::singleton()                    \
                               .findSchemaOrThrow("memlayers::" #name, "") \
                               .typed<decltype(cpu::name)>();              \
    return op.call(__VA_ARGS__);                                           \
  }

MEMLAYERS_CALL(lookup, (std::tuple<at::Tensor, at::Tensor>),
               (const at::Tensor& query, const at::Tensor& keys, std::int64_t knn), query, keys,
               knn)
MEMLAYERS_CALL(lookup_backward, (std::tuple<at::Tensor, at::Tensor>),
               (const at::Tensor& grad_scores, const at::Tensor& query, const at::Tensor& keys,
                const at::Tensor& slots),
               grad_scores, query, keys, slots)
MEMLAYERS_CALL(gather, (at::Tensor),
               (const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                bool sparse_grad),
               values, slots, weights, sparse_grad)
MEMLAYERS_CALL(gather_backward_weights, (at::Tensor),
               (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& slots), grad,
               values, slots)
MEMLAYERS_CALL(gather_backward_values, (at::Tensor),
               (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& slots,
                const at::Tensor& weights, bool sparse_grad),
               grad, values, slots, weights, sparse_grad)
MEMLAYERS_CALL(peer_gather, (at::Tensor),
               (const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                const at::Tensor& weights, bool sparse_grad),
               values, x, slots, weights, sparse_grad)
MEMLAYERS_CALL(peer_gather_backward, (std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>),
               (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x,
                const at::Tensor& slots, const at::Tensor& weights),
               grad, values, x, slots, weights)
MEMLAYERS_CALL(peer_gather_backward_values, (at::Tensor),
               (const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x,
                const at::Tensor& slots, const at::Tensor& u_factors, const at::Tensor& v_factors,
                bool sparse_grad),
               grad, values, x, slots, u_factors, v_factors, sparse_grad)

#undef MEMLAYERS_CALL

}  // namespace dispatch

namespace meta {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  check_lookup("lookup", query, keys);
  check_knn("lookup", knn, keys.sym_size(2));
  const c10::SymInt shape[3] = {query.sym_size(0), query.sym_size(1), knn};
  return {at::empty_symint(shape, query.options().dtype(at::kFloat)),
          at::empty_symint(shape, query.options().dtype(at::kLong))};
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

}  // namespace meta

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

std::tuple<at::Tensor, at::Tensor> lookup_autograd(const at::Tensor& query, const at::Tensor& keys,
                                                   std::int64_t knn) {
  variable_list out = Lookup::apply(query, keys, knn);
  return {out[0], out[1]};
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
  m.def(
      "lookup_backward(Tensor grad_scores, Tensor query, Tensor keys, Tensor slots) -> "
      "(Tensor grad_query, Tensor grad_keys)");
  m.def("gather(Tensor values, Tensor slots, Tensor weights, bool sparse_grad=False) -> Tensor");
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
  m.impl("gather", &gather_autograd);
  m.impl("peer_gather", &peer_gather_autograd);
  // A second derivative is an error, not a silent zero.
  for (const char* name : {"lookup_backward", "gather_backward_weights", "gather_backward_values",
                           "peer_gather_backward", "peer_gather_backward_values"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

}  // namespace memlayers::ops

namespace memlayers {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  auto [scores, slots] = ops::dispatch::lookup(query, keys, knn);
  return {slots, scores};
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool sparse_grad) {
  return ops::dispatch::gather(values, slots, weights, sparse_grad);
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool sparse_grad) {
  return ops::dispatch::peer_gather(values, x, slots, weights, sparse_grad);
}

}  // namespace memlayers

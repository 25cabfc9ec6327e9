// SPDX-License-Identifier: Apache-2.0
// torch.ops.memlayers.*: schemas and implementations; derivatives are in autograd.cpp.
#include <torch/library.h>
#include <torch/version.h>

#include <string>

#include "ops/torch/operators.h"

namespace memlayers::ops {

namespace {

// An implementation behind the check of its operator, so that none forgets it.
template <auto check, auto implementation>
struct Checked;
template <auto check, class Result, class... Arguments, Result (*implementation)(Arguments...)>
struct Checked<check, implementation> {
  static Result call(Arguments... arguments) {
    check(arguments...);
    return implementation(arguments...);
  }
};

// Python looks for this in the file before it loads it: another torch would crash, not complain.
extern "C" [[gnu::used, gnu::visibility("default")]] const char memlayers_torch_version[] =
    "memlayers built with torch " TORCH_VERSION;

#define MEMLAYERS_IMPL(name) m.impl(#name, &Checked<&check::name, &MEMLAYERS_BACKEND::name>::call);

}  // namespace

TORCH_LIBRARY(memlayers, m) {
  m.def("lookup(Tensor query, Tensor keys, int knn) -> (Tensor scores, Tensor slots)");
  m.def("lookup_softmax(Tensor query, Tensor keys, int knn) -> (Tensor weights, Tensor slots)");
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
  m.def("group(Tensor[] slots, int num_slots) -> (Tensor slots, Tensor begin, Tensor entries)");
  const auto define = [&m](const std::string& schema) { m.def(schema.c_str()); };
  const std::string gradient =
      "Tensor[] weights, Tensor[] rows, int[] first_columns, Tensor slots, Tensor begin, "
      "Tensor entries, ";
  const std::string end = "float weight_decay, float gradient_scale, int rounding_seed) -> ()";
  define("row_squares(" + gradient + "int width) -> Tensor");
  define(
      "update_adamw(Tensor(a!) values, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
      "Tensor(d!) steps, Tensor(e!)? master, " +
      gradient + "float lr, float beta1, float beta2, float eps, " + end);
  define(
      "update_rowwise_adamw(Tensor(a!) values, Tensor(b!)? exp_avg, Tensor(c!) exp_avg_sq, "
      "Tensor(d!) steps, Tensor(e!)? master, " +
      gradient + "float lr, float beta1, float beta2, float eps, " + end);
  define("update_rowwise_adagrad(Tensor(a!) values, Tensor(b!) exp_avg_sq, Tensor(c!)? master, " +
         gradient + "float lr, float eps, " + end);
  define("update_sgd(Tensor(a!) values, Tensor(b!)? master, " + gradient + "float lr, " + end);
}

#define MEMLAYERS_BACKEND cpu
TORCH_LIBRARY_IMPL(memlayers, CPU, m) { MEMLAYERS_OPERATORS(MEMLAYERS_IMPL); }
#undef MEMLAYERS_BACKEND

#define MEMLAYERS_BACKEND composite
TORCH_LIBRARY_IMPL(memlayers, CompositeExplicitAutograd, m) { MEMLAYERS_OPERATORS(MEMLAYERS_IMPL); }
#undef MEMLAYERS_BACKEND

#define MEMLAYERS_BACKEND meta
TORCH_LIBRARY_IMPL(memlayers, Meta, m) { MEMLAYERS_SHAPED_OPERATORS(MEMLAYERS_IMPL); }
#undef MEMLAYERS_BACKEND

}  // namespace memlayers::ops

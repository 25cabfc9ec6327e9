// SPDX-License-Identifier: Apache-2.0
// The operators of torch.ops.memlayers that compute: one list of names and one of signatures, of
// which every namespace below has a function each. cpu is on our kernels, composite in plain ATen
// for any other device, meta gives shapes only, for fake tensors; check is called before each of
// them (register.cpp). Everything else calls operators through the dispatcher (dispatch), so that
// autograd and torch.compile see them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

// Those whose results have shapes that follow from the arguments' shapes.
#define MEMLAYERS_SHAPED_OPERATORS(_)  \
  _(lookup)                            \
  _(lookup_softmax)                    \
  _(lookup_backward)                   \
  _(gather)                            \
  _(gather_backward_weights)           \
  _(gather_backward_values)            \
  _(peer_gather)                       \
  _(peer_gather_backward)              \
  _(peer_gather_backward_values)       \
  _(gather_quantized)                  \
  _(gather_quantized_backward_weights) \
  _(peer_gather_quantized)             \
  _(peer_gather_quantized_backward)    \
  _(row_squares)                       \
  _(update_adamw)                      \
  _(update_rowwise_adamw)              \
  _(update_rowwise_adagrad)            \
  _(update_sgd)

#define MEMLAYERS_OPERATORS(_)  \
  MEMLAYERS_SHAPED_OPERATORS(_) \
  _(group)

namespace memlayers::ops {

namespace signature {

using at::Tensor;
using TwoTensors = std::tuple<Tensor, Tensor>;
using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;
using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// scores, slots: the order of torch.topk, and the one that torch.library.opcheck can add
using lookup = TwoTensors(const Tensor& query, const Tensor& keys, std::int64_t knn);
// softmax of the scores, slots
using lookup_softmax = TwoTensors(const Tensor& query, const Tensor& keys, std::int64_t knn);
// grad_query, grad_keys
using lookup_backward = TwoTensors(const Tensor& grad_scores, const Tensor& query,
                                   const Tensor& keys, const Tensor& slots);

using gather = Tensor(const Tensor& values, const Tensor& slots, const Tensor& weights,
                      bool sparse_grad);
using gather_backward_weights = Tensor(const Tensor& grad, const Tensor& values,
                                       const Tensor& slots);
using gather_backward_values = Tensor(const Tensor& grad, const Tensor& values, const Tensor& slots,
                                      const Tensor& weights, bool sparse_grad);

using peer_gather = Tensor(const Tensor& values, const Tensor& x, const Tensor& slots,
                           const Tensor& weights, bool sparse_grad);
// grad_x, grad_weights, and the factors of the row gradients: of U with x, of V with grad
using peer_gather_backward = FourTensors(const Tensor& grad, const Tensor& values, const Tensor& x,
                                         const Tensor& slots, const Tensor& weights);
using peer_gather_backward_values = Tensor(const Tensor& grad, const Tensor& values,
                                           const Tensor& x, const Tensor& slots,
                                           const Tensor& u_factors, const Tensor& v_factors,
                                           bool sparse_grad);

// Rows of 8 or 4 bits, which are not differentiated.
using gather_quantized = Tensor(const Tensor& rows, const Tensor& slots, const Tensor& weights,
                                std::int64_t bits, std::int64_t width);
using gather_quantized_backward_weights = Tensor(const Tensor& grad, const Tensor& rows,
                                                 const Tensor& slots, std::int64_t bits,
                                                 std::int64_t width);
using peer_gather_quantized = Tensor(const Tensor& rows, const Tensor& x, const Tensor& slots,
                                     const Tensor& weights, std::int64_t bits, std::int64_t width);
// grad_x, grad_weights
using peer_gather_quantized_backward = TwoTensors(const Tensor& grad, const Tensor& rows,
                                                  const Tensor& x, const Tensor& slots,
                                                  const Tensor& weights, std::int64_t bits,
                                                  std::int64_t width);

// The contributions of parts of a gradient of rows put in order by slot (GroupedGradient of ops.h):
// slots, begin, entries. slots [T, J] of each part.
using group = ThreeTensors(at::TensorList slots, std::int64_t num_slots);
// What group() put in order: of part i weights[i] [T, J] and rows[i] [T, w], for the columns from
// first_columns[i] on; then what it gave.
using row_squares = Tensor(at::TensorList weights, at::TensorList rows,
                           at::IntArrayRef first_columns, const Tensor& slots, const Tensor& begin,
                           const Tensor& entries, std::int64_t width);

// One step in place on the touched rows of values [S, W] and of the tables beside them (RowState).
using MaybeTensor = std::optional<Tensor>;
using update_adamw = void(Tensor& values, Tensor& exp_avg, Tensor& exp_avg_sq, Tensor& steps,
                          const MaybeTensor& master, at::TensorList weights, at::TensorList rows,
                          at::IntArrayRef first_columns, const Tensor& slots, const Tensor& begin,
                          const Tensor& entries, double lr, double beta1, double beta2, double eps,
                          double weight_decay, double gradient_scale, std::int64_t rounding_seed);
using update_rowwise_adamw = void(Tensor& values, const MaybeTensor& exp_avg, Tensor& exp_avg_sq,
                                  Tensor& steps, const MaybeTensor& master, at::TensorList weights,
                                  at::TensorList rows, at::IntArrayRef first_columns,
                                  const Tensor& slots, const Tensor& begin, const Tensor& entries,
                                  double lr, double beta1, double beta2, double eps,
                                  double weight_decay, double gradient_scale,
                                  std::int64_t rounding_seed);
using update_rowwise_adagrad = void(Tensor& values, Tensor& exp_avg_sq, const MaybeTensor& master,
                                    at::TensorList weights, at::TensorList rows,
                                    at::IntArrayRef first_columns, const Tensor& slots,
                                    const Tensor& begin, const Tensor& entries, double lr,
                                    double eps, double weight_decay, double gradient_scale,
                                    std::int64_t rounding_seed);
using update_sgd = void(Tensor& values, const MaybeTensor& master, at::TensorList weights,
                        at::TensorList rows, at::IntArrayRef first_columns, const Tensor& slots,
                        const Tensor& begin, const Tensor& entries, double lr, double weight_decay,
                        double gradient_scale, std::int64_t rounding_seed);

}  // namespace signature

#define MEMLAYERS_DECLARE(name) signature::name name;

namespace cpu {
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}
namespace composite {
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
}
namespace meta {  // what group() gives depends on numbers: Python says so to fake tensors
MEMLAYERS_SHAPED_OPERATORS(MEMLAYERS_DECLARE)
}

#undef MEMLAYERS_DECLARE

// A function with the parameters of an operator that returns nothing.
template <class Function>
struct CheckOf;
template <class Result, class... Arguments>
struct CheckOf<Result(Arguments...)> {
  using type = void(Arguments...);
};

// Throw ValueError for a shape or a tensor of another device than the first, TypeError for a dtype.
// What is in the tensors is not looked at.
namespace check {
#define MEMLAYERS_DECLARE(name) CheckOf<signature::name>::type name;
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
#undef MEMLAYERS_DECLARE
}  // namespace check

// Calls the operator of this name: by device, under autograd, seen by torch.compile.
template <auto function>
struct Call;
template <class Result, class... Arguments, Result (*function)(Arguments...)>
struct Call<function> {
  const char* name;
  Result operator()(Arguments... arguments) const;
};

namespace dispatch {
#define MEMLAYERS_DECLARE(name) inline constexpr Call<&cpu::name> name{"memlayers::" #name};
MEMLAYERS_OPERATORS(MEMLAYERS_DECLARE)
#undef MEMLAYERS_DECLARE
}  // namespace dispatch

}  // namespace memlayers::ops

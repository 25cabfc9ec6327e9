// SPDX-License-Identifier: Apache-2.0
#include "ops/torch/check.h"

#include <atomic>

#include "kernels/quantized.h"
#include "memlayers/ops.h"
#include "ops/gather/stored_rows.h"
#include "ops/parallel.h"
#include "ops/torch/operators.h"

namespace memlayers::ops {
namespace {

void check_gather_quantized(const char* op, const at::Tensor& rows, const at::Tensor& slots,
                            const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  check_together(op, {{"rows", rows}, {"slots", slots}, {"weights", weights}});
  check_quantized(op, rows, bits, width);
  check_dim(op, "slots", slots, 2);
  check_type(op, "slots", slots, {at::kLong});
  check_type(op, "weights", weights, {at::kFloat});
  check_same_shape(op, "weights", weights, "slots", slots);
}

void check_peer_gather_quantized(const char* op, const at::Tensor& rows, const at::Tensor& x,
                                 const at::Tensor& slots, const at::Tensor& weights,
                                 std::int64_t bits, std::int64_t width) {
  check_gather_quantized(op, rows, slots, weights, bits, width);
  check_together(op, {{"rows", rows}, {"x", x}});
  check_peer_x(op, x, slots, width);
  if (bits == 4) check_int4_x(op, x);
}

}  // namespace

void check_together(const char* op, std::initializer_list<NamedTensor> tensors) {
  const NamedTensor& first = *tensors.begin();
  for (const auto& [name, tensor] : tensors) {
    TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, op, ": expected a dense ", name,
                      ", got one of layout ", tensor.layout());
    TORCH_CHECK_VALUE(tensor.device() == first.tensor.device(), op, ": expected ", name, " on ",
                      first.tensor.device(), ", as ", first.name, ", got it on ", tensor.device());
  }
}

void check_cpu(const char* op, std::initializer_list<NamedTensor> tensors) {
  check_together(op, tensors);
  const NamedTensor& first = *tensors.begin();
  TORCH_CHECK_VALUE(first.tensor.is_cpu(), op, ": expected ", first.name, " on the CPU, got it on ",
                    first.tensor.device());
}

void check_gather(const char* op, const at::Tensor& values, const at::Tensor& slots,
                  const at::Tensor& weights) {
  check_together(op, {{"values", values}, {"slots", slots}, {"weights", weights}});
  check_dim(op, "values", values, 2);
  check_dim(op, "slots", slots, 2);
  check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  check_type(op, "slots", slots, {at::kLong});
  check_type(op, "weights", weights, {at::kFloat});
  check_same_shape(op, "weights", weights, "slots", slots);
}

void check_peer_x(const char* op, const at::Tensor& x, const at::Tensor& slots,
                  const c10::SymInt& width) {
  check_together(op, {{"slots", slots}, {"x", x}});
  check_dim(op, "x", x, 2);
  check_type(op, "x", x, {at::kFloat});
  TORCH_CHECK_VALUE(x.sym_size(0) == slots.sym_size(0), op, ": expected x of ", slots.sym_size(0),
                    " tokens, as slots, got shape ", x.sym_sizes());
  TORCH_CHECK_VALUE(x.sym_size(1) < width, op, ": expected x narrower than a row of values (",
                    width, "), got shape ", x.sym_sizes());
}

void check_int4_x(const char* op, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.sym_size(1) % kernels::kInt4Block == 0, op, ": expected x of a multiple of ",
                    kernels::kInt4Block, " columns for rows of 4 bits, got shape ", x.sym_sizes());
}

void check_peer_gather(const char* op, const at::Tensor& values, const at::Tensor& x,
                       const at::Tensor& slots, const at::Tensor& weights) {
  check_gather(op, values, slots, weights);
  check_peer_x(op, x, slots, values.sym_size(1));
}

void check_quantized(const char* op, const at::Tensor& rows, std::int64_t bits,
                     std::int64_t width) {
  TORCH_CHECK_VALUE(bits == 8 || bits == 4, op, ": expected bits 8 or 4, got ", bits);
  TORCH_CHECK_VALUE(width >= 1 && width <= kMostWidth, op, ": expected width in [1, ", kMostWidth,
                    "], got ", width);
  check_dim(op, "rows", rows, 2);
  check_type(op, "rows", rows, {at::kByte});
  const std::int64_t bytes = quantized_row_bytes(type_of_bits(bits), width);
  TORCH_CHECK_VALUE(rows.sym_size(1) == bytes, op, ": expected rows of ", bytes, " bytes for ",
                    width, " columns of ", bits, " bits, got shape ", rows.sym_sizes());
}

void check_grad(const char* op, const at::Tensor& grad, const c10::SymInt& tokens,
                const c10::SymInt& width) {
  check_type(op, "grad", grad, {at::kFloat});
  TORCH_CHECK_VALUE(grad.dim() == 2 && grad.sym_size(0) == tokens && grad.sym_size(1) == width, op,
                    ": expected grad [", tokens, ", ", width, "], got ", grad.sym_sizes());
}

void check_lookup(const char* op, const at::Tensor& query, const at::Tensor& keys) {
  check_together(op, {{"query", query}, {"keys", keys}});
  check_dim(op, "query", query, 3);
  check_dim(op, "keys", keys, 4);
  check_type(op, "query", query, {at::kFloat, at::kBFloat16});
  check_type(op, "keys", keys, {query.scalar_type()});
  TORCH_CHECK_VALUE(keys.sym_size(1) == 2 && keys.sym_size(0) == query.sym_size(1) &&
                        keys.sym_size(3) * 2 == query.sym_size(2),
                    op, ": expected keys [H, 2, n, d/2] for a query [T, H, d], got keys ",
                    keys.sym_sizes(), " and query ", query.sym_sizes());
}

void check_knn(const char* op, std::int64_t knn, const c10::SymInt& n_keys) {
  constexpr std::int64_t kMostKnn = 65535;  // places in the k x k grid are numbers of 32 bits
  TORCH_CHECK_VALUE(knn >= 1 && n_keys >= knn && knn <= kMostKnn, op,
                    ": expected knn in [1, n_keys = ", n_keys, "] and at most ", kMostKnn, ", got ",
                    knn);
}

void check_slots(const char* op, const at::Tensor& slots, std::int64_t num_slots) {
  const std::int64_t* data = slots.const_data_ptr<std::int64_t>();
  std::atomic<std::int64_t> bad{-1};
  parallel_ranges(slots.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto limit = static_cast<std::uint64_t>(num_slots);
    bool all_inside = true;  // without a branch, so that it vectorises
    for (std::int64_t i = begin; i < end; ++i) {
      all_inside &= static_cast<std::uint64_t>(data[i]) < limit;
    }
    if (all_inside) return;
    for (std::int64_t i = begin; i < end; ++i) {
      if (static_cast<std::uint64_t>(data[i]) >= limit) {
        bad = i;
        return;
      }
    }
  });
  if (bad >= 0) {
    TORCH_CHECK_INDEX(false, op, ": expected slots in [0, ", num_slots, "), got ", data[bad],
                      " at position ", bad.load());
  }
}

namespace check {

void lookup(const at::Tensor& query, const at::Tensor& keys, std::int64_t knn) {
  check_lookup("lookup", query, keys);
  check_knn("lookup", knn, keys.sym_size(2));
}

void lookup_softmax(const at::Tensor& query, const at::Tensor& keys, std::int64_t knn) {
  check_lookup("lookup_softmax", query, keys);
  check_knn("lookup_softmax", knn, keys.sym_size(2));
}

void lookup_backward(const at::Tensor& grad_scores, const at::Tensor& query, const at::Tensor& keys,
                     const at::Tensor& slots) {
  constexpr const char* kOp = "lookup_backward";
  check_lookup(kOp, query, keys);
  check_together(kOp, {{"query", query}, {"grad_scores", grad_scores}, {"slots", slots}});
  check_dim(kOp, "slots", slots, 3);
  check_type(kOp, "slots", slots, {at::kLong});
  check_type(kOp, "grad_scores", grad_scores, {at::kFloat});
  check_same_shape(kOp, "grad_scores", grad_scores, "slots", slots);
  TORCH_CHECK_VALUE(
      slots.sym_size(0) == query.sym_size(0) && slots.sym_size(1) == query.sym_size(1), kOp,
      ": expected slots of ", query.sym_size(0), " tokens and ", query.sym_size(1),
      " heads, got shape ", slots.sym_sizes());
}

void gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights, bool) {
  check_gather("gather", values, slots, weights);
}

void gather_backward_weights(const at::Tensor& grad, const at::Tensor& values,
                             const at::Tensor& slots) {
  constexpr const char* kOp = "gather_backward_weights";
  check_together(kOp, {{"values", values}, {"slots", slots}, {"grad", grad}});
  check_dim(kOp, "values", values, 2);
  check_type(kOp, "values", values, {at::kFloat, at::kBFloat16});
  check_dim(kOp, "slots", slots, 2);
  check_type(kOp, "slots", slots, {at::kLong});
  check_grad(kOp, grad, slots.sym_size(0), values.sym_size(1));
}

void gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                            const at::Tensor& slots, const at::Tensor& weights, bool) {
  constexpr const char* kOp = "gather_backward_values";
  check_gather(kOp, values, slots, weights);
  check_together(kOp, {{"values", values}, {"grad", grad}});
  check_grad(kOp, grad, slots.sym_size(0), values.sym_size(1));
}

void peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                 const at::Tensor& weights, bool) {
  check_peer_gather("peer_gather", values, x, slots, weights);
}

void peer_gather_backward(const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x,
                          const at::Tensor& slots, const at::Tensor& weights) {
  constexpr const char* kOp = "peer_gather_backward";
  check_peer_gather(kOp, values, x, slots, weights);
  check_together(kOp, {{"values", values}, {"grad", grad}});
  check_grad(kOp, grad, slots.sym_size(0), values.sym_size(1) - x.sym_size(1));
}

void peer_gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                 const at::Tensor& x, const at::Tensor& slots,
                                 const at::Tensor& u_factors, const at::Tensor& v_factors, bool) {
  constexpr const char* kOp = "peer_gather_backward_values";
  check_together(
      kOp,
      {{"values", values}, {"u_factors", u_factors}, {"v_factors", v_factors}, {"grad", grad}});
  check_peer_gather(kOp, values, x, slots, u_factors);
  check_type(kOp, "v_factors", v_factors, {at::kFloat});
  check_same_shape(kOp, "v_factors", v_factors, "slots", slots);
  check_grad(kOp, grad, slots.sym_size(0), values.sym_size(1) - x.sym_size(1));
}

void gather_quantized(const at::Tensor& rows, const at::Tensor& slots, const at::Tensor& weights,
                      std::int64_t bits, std::int64_t width) {
  check_gather_quantized("gather_quantized", rows, slots, weights, bits, width);
}

void gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor& rows,
                                       const at::Tensor& slots, std::int64_t bits,
                                       std::int64_t width) {
  constexpr const char* kOp = "gather_quantized_backward_weights";
  check_together(kOp, {{"rows", rows}, {"slots", slots}, {"grad", grad}});
  check_quantized(kOp, rows, bits, width);
  check_dim(kOp, "slots", slots, 2);
  check_type(kOp, "slots", slots, {at::kLong});
  check_grad(kOp, grad, slots.sym_size(0), width);
}

void peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots,
                           const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  check_peer_gather_quantized("peer_gather_quantized", rows, x, slots, weights, bits, width);
}

void peer_gather_quantized_backward(const at::Tensor& grad, const at::Tensor& rows,
                                    const at::Tensor& x, const at::Tensor& slots,
                                    const at::Tensor& weights, std::int64_t bits,
                                    std::int64_t width) {
  constexpr const char* kOp = "peer_gather_quantized_backward";
  check_peer_gather_quantized(kOp, rows, x, slots, weights, bits, width);
  check_together(kOp, {{"rows", rows}, {"grad", grad}});
  check_grad(kOp, grad, slots.sym_size(0), width - x.sym_size(1));
}

}  // namespace check
}  // namespace memlayers::ops

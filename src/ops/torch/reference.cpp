// SPDX-License-Identifier: Apache-2.0
// The operators in plain ATen: differentiable forwards (namespace reference) that serve as the
// tests' oracle, and forwards and backwards (ops::composite) for devices that have no kernel of
// ours.
#include <ATen/ATen.h>

#include "kernels/quantized.h"
#include "memlayers/ops.h"
#include "ops/gather/stored_rows.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"

namespace memlayers {
namespace {

// Rows and columns of slots, for any device; shell numbering.
std::pair<at::Tensor, at::Tensor> cells(const at::Tensor& slots) {
  at::Tensor m = slots.to(at::kDouble).sqrt().floor().to(at::kLong);
  m = m - (m * m > slots).to(at::kLong);
  m = m + ((m + 1) * (m + 1) <= slots).to(at::kLong);
  const at::Tensor d = slots - m * m;
  const at::Tensor in_row = d < m;
  return {at::where(in_row, d, m), at::where(in_row, m, 2 * m - d)};
}

at::Tensor rows_of(const at::Tensor& values, const at::Tensor& slots) {  // [T, J, W] float32
  return values.index_select(0, slots.flatten())
      .to(at::kFloat)
      .view({slots.size(0), slots.size(1), values.size(1)});
}

at::Tensor as_gradient(const at::Tensor& rows, const at::Tensor& slots, const at::Tensor& values,
                       bool sparse) {
  const at::Tensor flat = rows.reshape({-1, values.size(1)});
  if (sparse) {
    return at::sparse_coo_tensor(slots.reshape({1, -1}), flat.to(values.scalar_type()),
                                 values.sizes())
        .coalesce();
  }
  return at::zeros(values.sizes(), flat.options())
      .index_add(0, slots.flatten(), flat)
      .to(values.scalar_type());
}

// The chosen rows as float32, one for each slot of the list, and their places in it.
std::pair<at::Tensor, at::Tensor> chosen_rows(const at::Tensor& rows, const at::Tensor& slots,
                                              std::int64_t bits, std::int64_t width) {
  const at::Tensor chosen = rows.index_select(0, slots.flatten());
  return {reference::dequantize_rows(chosen, ops::type_of_bits(bits), width),
          at::arange(slots.numel(), slots.options()).view(slots.sizes())};
}

}  // namespace

namespace reference {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query_in, const at::Tensor& keys_in,
                                          std::int64_t knn) {
  ops::check_lookup("lookup", query_in, keys_in);
  ops::check_knn("lookup", knn, keys_in.sym_size(2));
  const at::Tensor query = query_in.to(at::kFloat), keys = keys_in.to(at::kFloat);
  const std::int64_t T = query.size(0), H = query.size(1);
  const at::Tensor halves = query.view({T, H, 2, query.size(2) / 2});
  const at::Tensor products = at::einsum("thsd,hsnd->thsn", {halves, keys});  // [T, H, 2, n]
  // Descending and stable, so that ties go to the lower index.
  auto [scores, indices] = at::sort(products, /*stable=*/true, -1, /*descending=*/true);
  scores = scores.narrow(-1, 0, knn);
  indices = indices.narrow(-1, 0, knn);
  const at::Tensor sums =
      (scores.select(2, 0).unsqueeze(-1) + scores.select(2, 1).unsqueeze(-2)).flatten(2);
  auto [best, place] = at::sort(sums, /*stable=*/true, -1, /*descending=*/true);
  best = best.narrow(-1, 0, knn);
  place = place.narrow(-1, 0, knn);
  const at::Tensor i = indices.select(2, 0).gather(-1, at::floor_divide(place, knn));
  const at::Tensor j = indices.select(2, 1).gather(-1, at::remainder(place, knn));
  const at::Tensor m = at::maximum(i, j);
  return {m * m + m + i - j, best};
}

at::Tensor dequantize_rows(const at::Tensor& rows, RowType type, std::int64_t width) {
  ops::check_quantized("dequantize_rows", rows, ops::bits_of_type(type), width);
  const std::int64_t S = rows.size(0);
  // A tensor of another type over the bytes [begin, begin + bytes) of each row.
  const auto bytes_as = [&](std::int64_t begin, std::int64_t bytes, at::ScalarType wanted) {
    return rows.narrow(1, begin, bytes).contiguous().view(wanted);
  };
  if (type == RowType::kInt8) {
    const std::int64_t scales = kernels::scales_offset<kernels::Int8>(width);
    return bytes_as(0, width, at::kChar).to(at::kFloat) * bytes_as(scales, 4, at::kFloat);
  }
  const std::int64_t scales = kernels::scales_offset<kernels::Int4>(width);
  // The sizes in full: of no rows a view cannot find one out.
  const std::int64_t blocks = scales / 32, groups = 2 * blocks;
  const at::Tensor words = bytes_as(0, scales, at::kInt).view({S, blocks, 8});
  std::vector<at::Tensor> columns;  // [S, blocks, 8] each
  for (std::int64_t k = 0; k < 8; ++k) {
    columns.push_back(at::bitwise_and(at::bitwise_right_shift(words, 4 * k), 15) - 8);
  }
  const at::Tensor q = at::stack(columns, 2).view({S, groups, kernels::kInt4Group});
  const at::Tensor scale = bytes_as(scales, groups * 2, at::kBFloat16).to(at::kFloat);
  return (q * scale.unsqueeze(2)).view({S, groups * kernels::kInt4Group}).narrow(1, 0, width);
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights) {
  ops::check_gather("gather", values, slots, weights);
  return at::einsum("tj,tjw->tw", {weights, rows_of(values, slots)});
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights) {
  ops::check_peer_gather("peer_gather", values, x, slots, weights);
  const at::Tensor rows = rows_of(values, slots);
  const std::int64_t D = x.size(1);
  const at::Tensor z = at::einsum("tjd,td->tj", {rows.narrow(2, 0, D), x});
  return at::einsum("tj,tjw->tw", {weights * at::gelu(z), rows.narrow(2, D, rows.size(2) - D)});
}

}  // namespace reference

namespace ops::composite {

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  auto [slots, scores] = reference::lookup(query, keys, knn);
  return {scores, slots};
}

std::tuple<at::Tensor, at::Tensor> lookup_backward(const at::Tensor& grad, const at::Tensor& query,
                                                   const at::Tensor& keys,
                                                   const at::Tensor& slots) {
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2), n = keys.size(2);
  const at::Tensor q = query.to(at::kFloat).view({T, H, 2, d / 2}), k = keys.to(at::kFloat);
  const auto [row, column] = cells(slots);
  at::Tensor grad_query = at::empty_like(q), grad_keys = at::empty_like(k);
  for (std::int64_t set = 0; set < 2; ++set) {
    // The gradient of the score matrix, [T, H, n], for a set at a time.
    const at::Tensor scores =
        at::zeros({T, H, n}, q.options()).scatter_add(2, set == 0 ? row : column, grad);
    grad_query.select(2, set).copy_(at::einsum("thn,hnd->thd", {scores, k.select(1, set)}));
    grad_keys.select(1, set).copy_(at::einsum("thn,thd->hnd", {scores, q.select(2, set)}));
  }
  return {grad_query.view({T, H, d}).to(query.scalar_type()), grad_keys.to(keys.scalar_type())};
}

at::Tensor gather(const at::Tensor& values, const at::Tensor& slots, const at::Tensor& weights,
                  bool /*sparse_grad*/) {
  return reference::gather(values, slots, weights);
}

at::Tensor gather_backward_weights(const at::Tensor& grad, const at::Tensor& values,
                                   const at::Tensor& slots) {
  return at::einsum("tw,tjw->tj", {grad, rows_of(values, slots)});
}

at::Tensor gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                  const at::Tensor& slots, const at::Tensor& weights,
                                  bool sparse_grad) {
  return as_gradient(weights.unsqueeze(2) * grad.unsqueeze(1), slots, values, sparse_grad);
}

at::Tensor peer_gather(const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
                       const at::Tensor& weights, bool /*sparse_grad*/) {
  return reference::peer_gather(values, x, slots, weights);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> peer_gather_backward(
    const at::Tensor& grad, const at::Tensor& values, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights) {
  const at::Tensor rows = rows_of(values, slots);
  const std::int64_t D = x.size(1);
  const at::Tensor u = rows.narrow(2, 0, D), v = rows.narrow(2, D, rows.size(2) - D);
  const at::Tensor z = at::einsum("tjd,td->tj", {u, x});
  const at::Tensor g = at::einsum("tjw,tw->tj", {v, grad});
  const at::Tensor u_factors = at::gelu_backward(g * weights, z);
  return {at::einsum("tj,tjd->td", {u_factors, u}), g * at::gelu(z), u_factors,
          weights * at::gelu(z)};
}

at::Tensor peer_gather_backward_values(const at::Tensor& grad, const at::Tensor& values,
                                       const at::Tensor& x, const at::Tensor& slots,
                                       const at::Tensor& u_factors, const at::Tensor& v_factors,
                                       bool sparse_grad) {
  const at::Tensor rows = at::cat(
      {u_factors.unsqueeze(2) * x.unsqueeze(1), v_factors.unsqueeze(2) * grad.unsqueeze(1)}, 2);
  return as_gradient(rows, slots, values, sparse_grad);
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn) {
  auto [slots, scores] = reference::lookup(query, keys, knn);
  return {at::softmax(scores, -1), slots};
}

// Rows of few bits: the chosen ones as float32, numbered anew, and then as above.
at::Tensor gather_quantized(const at::Tensor& rows, const at::Tensor& slots,
                            const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  const auto [values, places] = chosen_rows(rows, slots, bits, width);
  return reference::gather(values, places, weights);
}

at::Tensor gather_quantized_backward_weights(const at::Tensor& grad, const at::Tensor& rows,
                                             const at::Tensor& slots, std::int64_t bits,
                                             std::int64_t width) {
  const auto [values, places] = chosen_rows(rows, slots, bits, width);
  return gather_backward_weights(grad, values, places);
}

at::Tensor peer_gather_quantized(const at::Tensor& rows, const at::Tensor& x,
                                 const at::Tensor& slots, const at::Tensor& weights,
                                 std::int64_t bits, std::int64_t width) {
  const auto [values, places] = chosen_rows(rows, slots, bits, width);
  return reference::peer_gather(values, x, places, weights);
}

std::tuple<at::Tensor, at::Tensor> peer_gather_quantized_backward(
    const at::Tensor& grad, const at::Tensor& rows, const at::Tensor& x, const at::Tensor& slots,
    const at::Tensor& weights, std::int64_t bits, std::int64_t width) {
  const auto [values, places] = chosen_rows(rows, slots, bits, width);
  const auto all = peer_gather_backward(grad, values, x, places, weights);
  return {std::get<0>(all), std::get<1>(all)};
}

}  // namespace ops::composite
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
// The lookup of few tokens through sub-keys of 8 bits, exact all the same.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/lookup/packed_lookup.h"
#include "ops/parallel.h"
#include "ops/torch/check.h"

namespace memlayers {
namespace {

constexpr std::int64_t kMostHalf = std::int64_t{1} << 17;  // sums of products of 8 bits fit 32

}  // namespace

PackedKeys pack_keys(const at::Tensor& keys_in) {
  ops::check_dim("pack_keys", "keys", keys_in, 4);
  ops::check_type("pack_keys", "keys", keys_in, {at::kFloat, at::kBFloat16});
  TORCH_CHECK_VALUE(keys_in.size(3) < kMostHalf, "pack_keys: expected sub-keys narrower than ",
                    kMostHalf, ", got shape ", keys_in.sizes());
  PackedKeys packed;
  packed.keys = keys_in.detach().to(at::kCPU, at::kFloat).contiguous();
  const std::int64_t half = packed.keys.size(3);
  const at::Tensor flat = packed.keys.view({-1, half});
  packed.rows = quantize_rows(flat, RowType::kInt8);
  const at::Tensor read = dequantize_rows(packed.rows, RowType::kInt8, half);
  // Beside what the 8 bits lost, what float32 sums of `half` terms may lose.
  const double rounding = 2 * (static_cast<double>(half) + 4) * 0x1p-24;
  packed.norm = at::linalg_vector_norm(read, 2, 1) * (1 + 1e-6);
  packed.error = at::linalg_vector_norm(flat - read, 2, 1) * (1 + 1e-6) +
                 at::linalg_vector_norm(flat, 2, 1) * rounding;
  const std::int64_t scales = kernels::scales_offset<kernels::Int8>(half);
  packed.scale =
      packed.rows.narrow(1, scales, sizeof(float)).contiguous().view(at::kFloat).view(-1);
  return packed;
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query_in,
                                                  const PackedKeys& packed, std::int64_t knn) {
  ops::check_cpu("lookup", {{"query", query_in}});
  ops::check_lookup("lookup", query_in, packed.keys);
  ops::check_knn("lookup", knn, packed.keys.sym_size(2));
  const at::Tensor query = query_in.detach().to(at::kFloat).contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2);
  at::Tensor slots = at::empty({T, H, knn}, query.options().dtype(at::kLong));
  at::Tensor weights = at::empty({T, H, knn}, query.options());
  const std::int64_t n = packed.keys.size(2);
  ops::parallel_ranges(T * H, n * d, [&](std::int64_t begin, std::int64_t end) {
    ops::PackedLookup lookup(packed, knn);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      lookup.run(unit % H, query.const_data_ptr<float>() + unit * d,
                 weights.mutable_data_ptr<float>() + unit * knn,
                 slots.mutable_data_ptr<std::int64_t>() + unit * knn);
    }
  });
  return {slots, weights};
}

}  // namespace memlayers

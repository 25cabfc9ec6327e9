// SPDX-License-Identifier: Apache-2.0
// The lookup of few tokens through sub-keys of 8 bits, exact all the same.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/best_cells.h"
#include "ops/check.h"
#include "ops/parallel.h"
#include "ops/prefetch.h"

namespace memlayers {
namespace {

constexpr std::int64_t kMostHalf = std::int64_t{1} << 17;  // sums of products of 8 bits fit 32

// The scores of one set of sub-keys for one query half: those that could be among the best k, by
// index, and exactly.
class SetLookup {
 public:
  SetLookup(const PackedKeys& packed, std::int64_t knn)
      : packed_(packed),
        n_(packed.keys.size(2)),
        half_(packed.keys.size(3)),
        knn_(knn),
        cells_(n_, knn),
        row_(kernels::quantized_row_bytes<kernels::Int8>(half_)),
        difference_(half_),
        packed_query_(kernels::round_up(half_, kernels::kScreenColumns)),
        products_(n_),
        low_(n_),
        high_(n_),
        best_(knn),
        index_(knn) {}

  // best (k) and index (k) of set number `set` of [H * 2].
  void run(std::int64_t set, const float* query, float* best, std::int32_t* index) {
    const kernels::Kernels& kernel = kernels::active();
    const std::int64_t first = set * n_;
    const auto norm = static_cast<float>(std::sqrt(kernel.squared_norm(query, half_)));
    if (std::isfinite(norm)) {
      bound_scores(first, query, norm);
    } else {  // nothing is known
      std::fill(low_.begin(), low_.end(), norm);
      std::fill(high_.begin(), high_.end(), std::numeric_limits<float>::infinity());
    }
    // At least k scores reach the k-th of the lower bounds: what cannot reach it is none of them.
    cells_.select(low_.data(), n_, best_.data(), index_.data());
    const float bound = best_.back();
    candidates_.clear();
    const float* keys = packed_.keys.const_data_ptr<float>() + first * half_;
    for (std::int64_t i = 0; i < n_; ++i) {
      if (high_[i] < bound) continue;
      candidates_.push_back(i);
      ops::prefetch(keys + i * half_, half_ * std::int64_t{sizeof(float)});
    }
    scores_.resize(candidates_.size());
    const auto count = static_cast<std::int64_t>(candidates_.size());
    kernel.f32.dots(keys, {half_, half_, 0, half_}, candidates_.data(), count, 0, query,
                    scores_.data());
    cells_.select(scores_.data(), count, best, index);
    for (std::int64_t j = 0; j < knn_; ++j) {
      index[j] = static_cast<std::int32_t>(candidates_[index[j]]);
    }
  }

 private:
  // Fills low_ and high_, bounds of the scores: |q.k - q'.k'| <= |q| |k - k'| + |q - q'| |k'|.
  void bound_scores(std::int64_t first, const float* query, float norm) {
    const std::int64_t stride = packed_.rows.size(1);
    const auto* rows = static_cast<const kernels::Int8*>(packed_.rows.const_data_ptr());
    const float unit = pack(query);
    kernels::active().screen(rows + first * stride, stride, n_, packed_query_.data(), half_,
                             products_.data());
    const float* error = packed_.error.const_data_ptr<float>() + first;
    const float* scale = packed_.scale.const_data_ptr<float>() + first;
    const float* size = packed_.norm.const_data_ptr<float>() + first;
    for (std::int64_t i = 0; i < n_; ++i) {
      const float score = static_cast<float>(products_[i]) * (unit * scale[i]);
      const float margin = norm * error[i] + query_error_ * size[i];
      high_[i] = score + margin;
      low_[i] = score - margin;
    }
  }

  // Fills packed_query_ and query_error_; returns the unit of the 8-bit numbers.
  float pack(const float* query) {
    std::vector<kernels::Int8>& packed = row_;
    kernels::quantize(query, half_, packed.data());
    kernels::dequantize(packed.data(), half_, difference_.data());
    for (std::int64_t c = 0; c < half_; ++c) {
      packed_query_[c] = packed[c].bits;
      difference_[c] -= query[c];
    }
    const double error = std::sqrt(kernels::active().squared_norm(difference_.data(), half_));
    query_error_ = static_cast<float>(error * (1 + 1e-6));
    float unit = 0;
    std::memcpy(&unit, packed.data() + kernels::scales_offset<kernels::Int8>(half_), sizeof unit);
    return unit;
  }

  const PackedKeys& packed_;
  std::int64_t n_, half_, knn_;
  ops::BestCells cells_;
  std::vector<kernels::Int8> row_;
  std::vector<float> difference_;
  std::vector<std::int8_t> packed_query_;
  float query_error_ = 0;
  std::vector<std::int32_t> products_;
  std::vector<std::int64_t> candidates_;
  std::vector<float> low_, high_, scores_, best_;
  std::vector<std::int32_t> index_;
};

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
  ops::check_lookup("lookup", query_in, packed.keys);
  ops::check_knn("lookup", knn, packed.keys.sym_size(2));
  const at::Tensor query = query_in.detach().to(at::kFloat).contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2);
  at::Tensor slots = at::empty({T, H, knn}, query.options().dtype(at::kLong));
  at::Tensor weights = at::empty({T, H, knn}, query.options());
  const std::int64_t n = packed.keys.size(2);
  ops::parallel_ranges(T * H, n * d, [&](std::int64_t begin, std::int64_t end) {
    SetLookup sets(packed, knn);
    ops::BestCells cells(n, knn);
    std::vector<float> best(2 * knn);
    std::vector<std::int32_t> index(2 * knn);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const float* q = query.const_data_ptr<float>() + unit * d;
      for (std::int64_t set = 0; set < 2; ++set) {
        sets.run(unit % H * 2 + set, q + set * (d / 2), best.data() + set * knn,
                 index.data() + set * knn);
      }
      float* out = weights.mutable_data_ptr<float>() + unit * knn;
      cells.combine(best.data(), index.data(), best.data() + knn, index.data() + knn, out,
                    slots.mutable_data_ptr<std::int64_t>() + unit * knn);
      kernels::active().softmax(out, knn, out);
    }
  });
  return {slots, weights};
}

}  // namespace memlayers

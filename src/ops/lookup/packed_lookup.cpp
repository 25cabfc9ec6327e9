// SPDX-License-Identifier: Apache-2.0
#include "ops/lookup/packed_lookup.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/kernels.h"
#include "ops/prefetch.h"

namespace memlayers::ops {

PackedLookup::PackedLookup(const PackedKeys& packed, std::int64_t knn)
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
      index_(knn),
      set_best_(2 * knn),
      set_index_(2 * knn) {}

void PackedLookup::run(std::int64_t head, const float* query, float* weights, std::int64_t* slots) {
  float* const best = set_best_.data();
  std::int32_t* const index = set_index_.data();
  for (std::int64_t set = 0; set < 2; ++set) {
    find(head * 2 + set, query + set * half_, best + set * knn_, index + set * knn_);
  }
  cells_.combine(best, index, best + knn_, index + knn_, weights, slots);
  kernels::active().softmax(weights, knn_, weights);
}

void PackedLookup::find(std::int64_t set, const float* query, float* best, std::int32_t* index) {
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
    prefetch(keys + i * half_, half_ * std::int64_t{sizeof(float)});
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

void PackedLookup::bound_scores(std::int64_t first, const float* query, float norm) {
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

float PackedLookup::pack(const float* query) {
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

}  // namespace memlayers::ops

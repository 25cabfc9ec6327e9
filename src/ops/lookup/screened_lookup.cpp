// SPDX-License-Identifier: Apache-2.0
#include "ops/lookup/screened_lookup.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <numeric>

namespace memlayers::ops {
namespace {

constexpr std::int64_t kGroup = kernels::kScreenGroup;
// From where on the screen is faster, packing the sub-keys included (docs/performance.md).
constexpr std::int64_t kLeastKeys = 1024, kLeastTokens = 64, kLeastHalf = 32;
constexpr std::int64_t kMostHalf = std::int64_t{1} << 16;  // sums of products of 8 bits fit 32

constexpr std::int64_t kBoundsAtOnce = 1 << 16;  // 256 KiB: they stay in the cache

}  // namespace

ScreenedKeys::ScreenedKeys(const at::Tensor& keys, std::int64_t T,
                           const kernels::BlockScreen* screen)
    : screen_(screen), n_(keys.size(2)), half_(keys.size(3)), groups_((n_ + kGroup - 1) / kGroup) {
  if (screen == nullptr || n_ < kLeastKeys || T < kLeastTokens || half_ < kLeastHalf ||
      half_ >= kMostHalf) {
    return;
  }
  const std::int64_t sets = keys.size(0) * 2;
  numbers_ = at::empty({sets, groups_, kernels::round_up(half_, 4) * kGroup},
                       keys.options().dtype(at::kByte));
  bounds_ = at::empty({sets, 3, groups_ * kGroup}, keys.options());
  starts_ = at::empty({sets, groups_ * kGroup}, keys.options().dtype(at::kInt));
  is_packed_.assign(static_cast<std::size_t>(sets), 1);
  const float* data = keys.const_data_ptr<float>();
  at::parallel_for(0, sets * groups_, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t s = i / groups_, first = i % groups_ * kGroup;
      const std::int64_t count = std::min(kGroup, n_ - first);
      if (!screen->pack_keys(data + (s * n_ + first) * half_, count, half_, set(s), i % groups_)) {
        std::atomic_ref(is_packed_[static_cast<std::size_t>(s)]).store(0);
      }
    }
  });
}

kernels::ScreenKeys ScreenedKeys::set(std::int64_t set) const {
  const std::int64_t row = groups_ * kGroup;
  float* const bounds = bounds_.mutable_data_ptr<float>() + set * 3 * row;
  return {n_,
          half_,
          static_cast<std::int8_t*>(numbers_.mutable_data_ptr()) + set * numbers_.stride(0),
          bounds,
          bounds + row,
          bounds + 2 * row,
          starts_.mutable_data_ptr<std::int32_t>() + set * row};
}

ScreenedLookup::ScreenedLookup(const kernels::BlockScreen& screen, std::int64_t block,
                               std::int64_t n, std::int64_t half, std::int64_t knn, float* high)
    : screen_(screen),
      n_(n),
      half_(half),
      knn_(knn),
      part_(std::min(block, std::max<std::int64_t>(8, kBoundsAtOnce / n))),
      numbers_(static_cast<std::size_t>(part_ * kernels::round_up(half, 16))),
      high_(high),
      units_(static_cast<std::size_t>(part_)),
      norms_(units_.size()),
      errors_(units_.size()),
      scores_(static_cast<std::size_t>(n)),
      queries_{kernels::round_up(half, 16), numbers_.data(), units_.data(), norms_.data(),
               errors_.data()},
      index_(static_cast<std::size_t>(n + 64)),
      scratch_(kernels::top_k_scratch_bytes(n, knn)) {}

void ScreenedLookup::bound(const float* query, std::int64_t stride, std::int64_t count,
                           const kernels::ScreenKeys& screened) {
  for (std::int64_t t = 0; t < count; ++t) {
    screen_.pack_query(query + t * stride, half_, queries_, t);
  }
  screen_.bound(screened, queries_, count, high_);
}

std::int64_t ScreenedLookup::find(std::int64_t t, const kernels::ScreenKeys& screened) {
  const float norm = queries_.norm[t];
  if (!(norm < kernels::kMostScreened)) {  // nothing is known
    std::iota(index_.begin(), index_.begin() + n_, 0);
    return n_;
  }
  return screen_.candidates(screened, norm, queries_.error[t], high_ + t * n_, knn_, index_.data(),
                            scratch_.data());
}

void ScreenedLookup::score(const float* query, const float* keys, std::int64_t m) {
  screen_.score(keys, half_, index_.data(), m, query, scores_.data());
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
// The best sub-keys of blocks of queries through products of 8-bit numbers, exact all the same: the
// scores of those that may be among the best are computed in float32 (kernels.h, BlockScreen).
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "ops/lookup/best_cells.h"

namespace memlayers::ops {

// All sets of sub-keys of a lookup, packed. Empty where float32 products serve as well: few keys,
// few tokens, or a processor that does not multiply 8-bit numbers faster.
class ScreenedKeys {
 public:
  // keys [H, 2, n, half], float32 and contiguous; T tokens will ask. screen: the processor's, null
  // where it has none.
  ScreenedKeys(const at::Tensor& keys, std::int64_t T,
               const kernels::BlockScreen* screen = kernels::active().block_screen);

  bool empty() const { return is_packed_.empty(); }
  const kernels::BlockScreen& screen() const { return *screen_; }  // requires !empty()
  // Not where a key of this set, of [H * 2], is no finite number or huge.
  bool has(std::int64_t set) const {
    return !empty() && is_packed_[static_cast<std::size_t>(set)] != 0;
  }
  kernels::ScreenKeys set(std::int64_t set) const;

 private:
  const kernels::BlockScreen* screen_;
  std::int64_t n_, half_, groups_;
  at::Tensor numbers_;          // uint8 [H * 2, groups, ceil(half / 4) * kScreenGroup * 4]
  at::Tensor bounds_, starts_;  // float32 [H * 2, 3, groups * kScreenGroup]; int32, one of them
  std::vector<std::uint8_t> is_packed_;  // a set
};

// One set's best keys of a block of queries. One instance a thread.
class ScreenedLookup {
 public:
  // screen: that of the keys. high: room for (block, n), to work in.
  ScreenedLookup(const kernels::BlockScreen& screen, std::int64_t block, std::int64_t n,
                 std::int64_t half, std::int64_t knn, float* high);

  // query: the first of `count` queries of width `half`, `stride` apart; keys [n, half], of which
  // `screened` is made. select(t, scores, index, m) is called with the scores of m >= k keys, the
  // best k among them, and their numbers, ascending, for t = 0, 1, ... Returns how many queries
  // were served: it ends before the last where the screen leaves so many keys that a product of all
  // is faster.
  template <class Select>
  std::int64_t run(const float* query, std::int64_t stride, std::int64_t count, const float* keys,
                   const kernels::ScreenKeys& screened, const Select& select) {
    std::int64_t scored = 0;
    for (std::int64_t t = 0; t < count; ++t) {
      if (t % part_ == 0) bound(query + t * stride, stride, std::min(part_, count - t), screened);
      const std::int64_t m = find(t % part_, screened);
      scored += m;
      if (scored > (t + 8) * n_ / 8) return t;
      score(query + t * stride, keys, m);
      select(t, scores_.data(), index_.data(), m);
    }
    return count;
  }

 private:
  void bound(const float* query, std::int64_t stride, std::int64_t count,
             const kernels::ScreenKeys& screened);
  std::int64_t find(std::int64_t t, const kernels::ScreenKeys& screened);
  void score(const float* query, const float* keys, std::int64_t m);

  const kernels::BlockScreen& screen_;
  std::int64_t n_, half_, knn_, part_;
  std::vector<std::uint8_t> numbers_;
  float* high_;
  std::vector<float> units_, norms_, errors_, scores_;
  kernels::ScreenQueries queries_;
  std::vector<std::int32_t> index_;
  std::vector<std::byte> scratch_;
};

}  // namespace memlayers::ops

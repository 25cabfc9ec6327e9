// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/parallel.h"
#include "ops/prefetch.h"
#include "ops/torch/check.h"
#include "ops/torch/operators.h"

namespace memlayers::ops::cpu {
namespace {

constexpr std::int64_t kTokensAhead = 4;
constexpr std::int64_t kFloatBytes = sizeof(float), kIndexBytes = sizeof(std::int32_t);
// Of query halves, which sub-keys' gradients are summed of: half of a second-level cache and less.
constexpr std::int64_t kKeptBytes = 1 << 18;

// The gradient of one set of sub-keys of one head from some tokens, and of their query halves
// scored against it. A sub-key that serves several chosen slots of a token is first given the sum
// of their gradients.
class SetBackward {
 public:
  SetBackward(std::int64_t tokens, std::int64_t n_keys, std::int64_t knn, std::int64_t half)
      : entry_of_(n_keys),
        count_(n_keys + 1),
        keys_(tokens * std::min(n_keys, knn)),
        tokens_(keys_.size()),
        sorted_tokens_(keys_.size()),
        factors_(keys_.size()),
        sorted_factors_(keys_.size()),
        halves_(tokens * half) {}

  // Forgets all tokens: others come.
  void start() {
    std::fill(entry_of_.begin(), entry_of_.end(), -1);
    std::fill(count_.begin(), count_.end(), 0);
    std::fill_n(factors_.begin(), size_, 0.0F);
    size_ = 0;
  }

  // indices (knn) and their gradients of token t; writes its query half's gradient. Keeps the half
  // itself for add_keys(), beside the others: it reads each for each of its sub-keys, and at the
  // distance at which they lie they would fall into few of the second-level cache's sets.
  void add_token(std::int64_t t, const std::int32_t* indices, const float* gradients,
                 std::int64_t knn, const float* keys, std::int64_t half, const float* query,
                 float* grad_query) {
    std::copy_n(query, half, halves_.begin() + t * half);
    const std::int64_t first = size_;
    for (std::int64_t j = 0; j < knn; ++j) {  // without a branch: which it is nobody can foresee
      const std::int32_t index = indices[j];
      const bool is_known = entry_of_[index] >= first;
      const std::int64_t entry = is_known ? entry_of_[index] : size_;
      entry_of_[index] = entry;
      keys_[entry] = index;
      tokens_[entry] = t;
      factors_[entry] += gradients[j];
      count_[index + 1] += is_known ? 0 : 1;
      size_ += is_known ? 0 : 1;
    }
    kernels::active().gather_cached(keys, half, keys_.data() + first, factors_.data() + first,
                                    size_ - first, grad_query);
  }

  // Adds to grad_keys [n, half], whose untouched rows stay.
  void add_keys(std::int64_t half, float* grad_keys) {
    for (std::size_t i = 1; i < count_.size(); ++i) count_[i] += count_[i - 1];
    std::vector<std::int64_t>& place = entry_of_;
    std::copy(count_.begin(), count_.end() - 1, place.begin());
    for (std::int64_t e = 0; e < size_; ++e) {
      const std::int64_t at = place[keys_[e]]++;
      sorted_tokens_[at] = tokens_[e];
      sorted_factors_[at] = factors_[e];
    }
    for (std::size_t key = 0; key + 1 < count_.size(); ++key) {
      const std::int64_t begin = count_[key], end = count_[key + 1];
      if (begin == end) continue;
      kernels::active().gather_cached_add(halves_.data(), half, sorted_tokens_.data() + begin,
                                          sorted_factors_.data() + begin, end - begin,
                                          grad_keys + static_cast<std::int64_t>(key) * half);
    }
  }

 private:
  std::vector<std::int64_t> entry_of_;  // a sub-key's last; of this token if not before its first
  std::vector<std::int64_t> count_;
  std::int64_t size_ = 0;  // entries: a sub-key, a token and a factor each
  std::vector<std::int64_t> keys_, tokens_, sorted_tokens_;
  std::vector<float> factors_, sorted_factors_;  // factors_ is zero behind the entries
  std::vector<float> halves_;
};

// kernels::cell_of for slots below 2^24, which float32 has all: a loop of vectors.
void small_cells(const std::int64_t* slots, std::int64_t count, std::int32_t* rows,
                 std::int32_t* columns) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto slot = static_cast<std::int32_t>(slots[i]);
    auto m = static_cast<std::int32_t>(std::sqrt(static_cast<float>(slot)));
    m -= m * m > slot ? 1 : 0;  // the root may have been rounded to the next whole number
    const std::int32_t d = slot - m * m;
    rows[i] = std::min(d, m);
    columns[i] = std::min(m, 2 * m - d);
  }
}

// The rows and the columns of all slots of a grid of n x n.
std::array<std::vector<std::int32_t>, 2> cells(const at::Tensor& slots, std::int64_t n) {
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  const auto count = static_cast<std::size_t>(slots.numel());
  std::array<std::vector<std::int32_t>, 2> result{std::vector<std::int32_t>(count),
                                                  std::vector<std::int32_t>(count)};
  parallel_ranges(slots.numel(), 16, [&](std::int64_t begin, std::int64_t end) {
    if (n <= 1 << 12) {
      small_cells(slot + begin, end - begin, result[0].data() + begin, result[1].data() + begin);
      return;
    }
    for (std::int64_t i = begin; i < end; ++i) {
      const auto [row, column] = kernels::cell_of(slot[i]);
      result[0][i] = static_cast<std::int32_t>(row);
      result[1][i] = static_cast<std::int32_t>(column);
    }
  });
  return result;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> lookup_backward(const at::Tensor& grad_in,
                                                   const at::Tensor& query_in,
                                                   const at::Tensor& keys_in,
                                                   const at::Tensor& slots_in) {
  const at::Tensor query = query_in.to(at::kFloat).contiguous();
  const at::Tensor keys = keys_in.to(at::kFloat).contiguous();
  const at::Tensor grad = grad_in.contiguous();
  const at::Tensor slots = slots_in.contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2), n = keys.size(2);
  const std::int64_t half = d / 2, knn = slots.size(2);
  check_slots("lookup_backward", slots, n * n);
  at::Tensor grad_query = at::empty_like(query);
  at::Tensor grad_keys = at::zeros_like(keys);
  const std::array<std::vector<std::int32_t>, 2> indices = cells(slots, n);
  const float* grad_data = grad.const_data_ptr<float>();

  at::parallel_for(0, H * 2, 1, [&](std::int64_t begin, std::int64_t end) {
    // So many tokens at a time that their halves stay in the second-level cache.
    const std::int64_t half_bytes = std::max<std::int64_t>(half * kFloatBytes, 1);
    const std::int64_t at_once =
        std::clamp<std::int64_t>(kKeptBytes / half_bytes, 1, std::max<std::int64_t>(T, 1));
    SetBackward backward(at_once, n, knn, half);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit / 2, set = unit % 2;
      const std::int32_t* set_indices = indices[set].data();
      const float* set_keys = keys.const_data_ptr<float>() + unit * n * half;
      float* grad_set_keys = grad_keys.mutable_data_ptr<float>() + unit * n * half;
      const float* halves = query.const_data_ptr<float>() + h * d + set * half;
      float* grad_halves = grad_query.mutable_data_ptr<float>() + h * d + set * half;
      for (std::int64_t first = 0; first < T; first += at_once) {
        backward.start();
        for (std::int64_t t = first; t < std::min(first + at_once, T); ++t) {
          const std::int64_t token_head = t * H + h, at = t * H * d;
          if (t + kTokensAhead < T) {  // out of no cache
            const std::int64_t later = at + kTokensAhead * H * d, bytes = half * kFloatBytes;
            prefetch(halves + later, bytes);
            prefetch(grad_halves + later, bytes);
            const std::int64_t later_slots = (token_head + kTokensAhead * H) * knn;
            prefetch(set_indices + later_slots, knn * kIndexBytes);
            prefetch(grad_data + later_slots, knn * kFloatBytes);
          }
          backward.add_token(t - first, set_indices + token_head * knn,
                             grad_data + token_head * knn, knn, set_keys, half, halves + at,
                             grad_halves + at);
        }
        backward.add_keys(half, grad_set_keys);
      }
    }
  });
  return {grad_query.to(query_in.scalar_type()), grad_keys.to(keys_in.scalar_type())};
}

}  // namespace memlayers::ops::cpu

// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"
#include "ops/parallel.h"

namespace memlayers::ops::cpu {
namespace {

// The gradient of one set of sub-keys of one head, and of the query halves scored against it. A
// sub-key that serves several chosen slots of a token is first given the sum of their gradients.
class SetBackward {
 public:
  SetBackward(std::int64_t tokens, std::int64_t n_keys, std::int64_t knn)
      : entry_of_(n_keys, 0),
        count_(n_keys + 1, 0),
        keys_(tokens * std::min(n_keys, knn)),
        tokens_(keys_.size()),
        factors_(keys_.size()) {}

  // indices (knn) and their gradients of token t; writes its query half's gradient.
  void add_token(std::int64_t t, const std::int32_t* indices, const float* gradients,
                 std::int64_t knn, const float* keys, std::int64_t half, float* grad_query) {
    const std::int64_t first = size_;
    for (std::int64_t j = 0; j < knn; ++j) {
      const std::int32_t index = indices[j];
      const std::int64_t entry = entry_of_[index];  // of this token only if it is one from `first`
      if (entry >= first && entry < size_ && keys_[entry] == index) {
        factors_[entry] += gradients[j];
      } else {
        entry_of_[index] = size_;
        keys_[size_] = index;
        tokens_[size_] = t;
        factors_[size_++] = gradients[j];
      }
    }
    kernels::active().f32.gather(keys, {half, half, 0, half}, keys_.data() + first,
                                 factors_.data() + first, size_ - first, 0, grad_query);
  }

  // grad_keys [n, half]: touched rows are written, the others stay.
  void write_keys(const float* query, std::int64_t stride, std::int64_t half, float* grad_keys) {
    for (std::int64_t e = 0; e < size_; ++e) ++count_[keys_[e] + 1];
    for (std::size_t i = 1; i < count_.size(); ++i) count_[i] += count_[i - 1];
    std::vector<std::int64_t> tokens(size_);
    std::vector<float> factors(size_);
    std::vector<std::int64_t> place(count_.begin(), count_.end() - 1);
    for (std::int64_t e = 0; e < size_; ++e) {
      const std::int64_t at = place[keys_[e]]++;
      tokens[at] = tokens_[e];
      factors[at] = factors_[e];
    }
    for (std::size_t key = 0; key + 1 < count_.size(); ++key) {
      const std::int64_t begin = count_[key], end = count_[key + 1];
      if (begin == end) continue;
      kernels::active().f32.gather(query, {stride, half, 0, half}, tokens.data() + begin,
                                   factors.data() + begin, end - begin, size_ - end,
                                   grad_keys + static_cast<std::int64_t>(key) * half);
    }
  }

 private:
  std::vector<std::int64_t> entry_of_, count_;
  std::int64_t size_ = 0;  // entries: a sub-key, a token and a factor each
  std::vector<std::int64_t> keys_, tokens_;
  std::vector<float> factors_;
};

// The rows, or the columns, of all slots.
std::vector<std::int32_t> cells(const at::Tensor& slots, std::int64_t set) {
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  std::vector<std::int32_t> result(slots.numel());
  parallel_ranges(slots.numel(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto [row, column] = cell_of(slot[i]);
      result[i] = static_cast<std::int32_t>(set == 0 ? row : column);
    }
  });
  return result;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> lookup_backward(const at::Tensor& grad_in,
                                                   const at::Tensor& query_in,
                                                   const at::Tensor& keys_in,
                                                   const at::Tensor& slots_in) {
  check_lookup("lookup_backward", query_in, keys_in);
  check_dim("lookup_backward", "slots", slots_in, 3);
  check_type("lookup_backward", "slots", slots_in, {at::kLong});
  check_same_shape("lookup_backward", "grad_scores", grad_in, "slots", slots_in);
  const at::Tensor query = query_in.to(at::kFloat).contiguous();
  const at::Tensor keys = keys_in.to(at::kFloat).contiguous();
  const at::Tensor grad = grad_in.to(at::kFloat).contiguous();
  const at::Tensor slots = slots_in.contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2), n = keys.size(2);
  const std::int64_t half = d / 2, knn = slots.size(2);
  TORCH_CHECK_VALUE(slots.size(0) == T && slots.size(1) == H, "lookup_backward: expected slots of ",
                    T, " tokens and ", H, " heads, got shape ", slots.sizes());
  check_slots("lookup_backward", slots, n * n);
  at::Tensor grad_query = at::empty_like(query);
  at::Tensor grad_keys = at::zeros_like(keys);
  const std::vector<std::int32_t> indices[2] = {cells(slots, 0), cells(slots, 1)};
  const float* grad_data = grad.const_data_ptr<float>();

  at::parallel_for(0, H * 2, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit / 2, set = unit % 2;
      const float* set_keys = keys.const_data_ptr<float>() + unit * n * half;
      SetBackward backward(T, n, knn);
      for (std::int64_t t = 0; t < T; ++t) {
        const std::int64_t token_head = t * H + h;
        backward.add_token(t, indices[set].data() + token_head * knn, grad_data + token_head * knn,
                           knn, set_keys, half,
                           grad_query.mutable_data_ptr<float>() + token_head * d + set * half);
      }
      backward.write_keys(query.const_data_ptr<float>() + h * d + set * half, H * d, half,
                          grad_keys.mutable_data_ptr<float>() + unit * n * half);
    }
  });
  return {grad_query.to(query_in.scalar_type()), grad_keys.to(keys_in.scalar_type())};
}

}  // namespace memlayers::ops::cpu

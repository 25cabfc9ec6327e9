// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/backend.h"
#include "ops/check.h"

namespace memlayers::ops::cpu {
namespace {

// Tokens of one block of scores: both score matrices of a head stay in the second-level cache.
std::int64_t tokens_a_block(std::int64_t n_keys) {
  constexpr std::int64_t kBlockScores = 1 << 16;  // 256 KB of float32
  return std::clamp<std::int64_t>(kBlockScores / (2 * n_keys), 8, 256);
}

struct AlignedScratch {
  explicit AlignedScratch(std::size_t bytes) : storage(bytes + 64) {}
  void* get() {
    const auto address = reinterpret_cast<std::uintptr_t>(storage.data());
    return storage.data() + ((64 - address % 64) % 64);
  }
  std::vector<std::byte> storage;
};

// The gradient of one set of sub-keys of one head, and of the query halves scored against it. A
// sub-key that serves several chosen slots of a token is first given the sum of their gradients.
class SetBackward {
 public:
  SetBackward(std::int64_t tokens, std::int64_t n_keys, std::int64_t knn)
      : sums_(n_keys, 0), is_touched_(n_keys, 0), count_(n_keys + 1, 0) {
    keys_.reserve(tokens * std::min(n_keys, knn));
  }

  // indices and gradients (knn) of token t; writes its query half's gradient.
  void add_token(std::int64_t t, const std::int64_t* indices, const float* gradients,
                 std::int64_t knn, const float* keys, std::int64_t half, float* grad_query) {
    const std::size_t first = keys_.size();
    for (std::int64_t j = 0; j < knn; ++j) {
      const std::int64_t index = indices[j];
      if (!is_touched_[index]) {
        is_touched_[index] = 1;
        keys_.push_back(index);
      }
      sums_[index] += gradients[j];
    }
    for (std::size_t e = first; e < keys_.size(); ++e) {
      factors_.push_back(sums_[keys_[e]]);
      tokens_.push_back(t);
      sums_[keys_[e]] = 0;
      is_touched_[keys_[e]] = 0;
    }
    kernels::active().f32.gather(keys, half, keys_.data() + first, factors_.data() + first,
                                 static_cast<std::int64_t>(keys_.size() - first), half, grad_query);
  }

  // grad_keys [n, half]: touched rows are written, the others stay.
  void write_keys(const float* query, std::int64_t stride, std::int64_t half, float* grad_keys) {
    const std::size_t entries = keys_.size();
    for (std::int64_t key : keys_) ++count_[key + 1];
    for (std::size_t i = 1; i < count_.size(); ++i) count_[i] += count_[i - 1];
    std::vector<std::int64_t> tokens(entries);
    std::vector<float> factors(entries);
    std::vector<std::int64_t> place(count_.begin(), count_.end() - 1);
    for (std::size_t e = 0; e < entries; ++e) {
      const std::int64_t at = place[keys_[e]]++;
      tokens[at] = tokens_[e];
      factors[at] = factors_[e];
    }
    for (std::size_t key = 0; key + 1 < count_.size(); ++key) {
      const std::int64_t begin = count_[key], end = count_[key + 1];
      if (begin == end) continue;
      kernels::active().f32.gather(query, stride, tokens.data() + begin, factors.data() + begin,
                                   end - begin, half,
                                   grad_keys + static_cast<std::int64_t>(key) * half);
    }
  }

 private:
  std::vector<float> sums_;
  std::vector<char> is_touched_;
  std::vector<std::int64_t> count_, keys_, tokens_;
  std::vector<float> factors_;
};

}  // namespace

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query_in, const at::Tensor& keys_in,
                                          std::int64_t knn) {
  check_lookup("lookup", query_in, keys_in);
  check_knn("lookup", knn, keys_in.sym_size(2));
  const at::Tensor query = query_in.to(at::kFloat).contiguous();
  const at::Tensor keys = keys_in.to(at::kFloat).contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2), n = keys.size(2);
  const std::int64_t half = d / 2;
  at::Tensor slots = at::empty({T, H, knn}, query.options().dtype(at::kLong));
  at::Tensor scores = at::empty({T, H, knn}, query.options());
  if (T == 0 || H == 0) return {scores, slots};

  const kernels::Kernels& kernel = kernels::active();
  const std::int64_t block = tokens_a_block(n), blocks = (T + block - 1) / block;
  const float* query_data = query.const_data_ptr<float>();
  const float* keys_data = keys.const_data_ptr<float>();
  std::int64_t* slots_data = slots.mutable_data_ptr<std::int64_t>();
  float* scores_data = scores.mutable_data_ptr<float>();

  // One unit is a block of tokens under one head. Its products run on one thread, so that results
  // do not depend on how many there are.
  at::parallel_for(0, blocks * H, 1, [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto options = at::TensorOptions().dtype(at::kFloat);
    at::Tensor products[2] = {at::empty({block, n}, options), at::empty({block, n}, options)};
    std::vector<float> best(2 * knn);
    std::vector<std::int32_t> index(2 * knn);
    AlignedScratch scratch(
        std::max(kernels::top_k_scratch_bytes(n, knn), kernels::combine_scratch_bytes(knn)));
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit % H, first = unit / H * block;
      const std::int64_t count = std::min(block, T - first);
      for (std::int64_t set = 0; set < 2; ++set) {
        const at::Tensor q =
            at::from_blob(const_cast<float*>(query_data + (first * H + h) * d + set * half),
                          {count, half}, {H * d, 1}, options);
        const at::Tensor k = at::from_blob(const_cast<float*>(keys_data + (h * 2 + set) * n * half),
                                           {half, n}, {1, half}, options);
        at::Tensor out = products[set].narrow(0, 0, count);
        at::mm_out(out, q, k);
      }
      for (std::int64_t t = 0; t < count; ++t) {
        for (std::int64_t set = 0; set < 2; ++set) {
          kernel.top_k(products[set].const_data_ptr<float>() + t * n, n, knn,
                       best.data() + set * knn, index.data() + set * knn, scratch.get());
        }
        const std::int64_t at = ((first + t) * H + h) * knn;
        kernel.combine(best.data(), index.data(), best.data() + knn, index.data() + knn, knn,
                       scores_data + at, slots_data + at, scratch.get());
      }
    }
  });
  return {scores, slots};
}

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
  const std::int64_t* slots_data = slots.const_data_ptr<std::int64_t>();
  const float* grad_data = grad.const_data_ptr<float>();

  at::parallel_for(0, H * 2, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> indices(knn);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit / 2, set = unit % 2;
      const float* set_keys = keys.const_data_ptr<float>() + unit * n * half;
      SetBackward backward(T, n, knn);
      for (std::int64_t t = 0; t < T; ++t) {
        const std::int64_t token_head = t * H + h;
        for (std::int64_t j = 0; j < knn; ++j) {
          const auto [row, column] = cell_of(slots_data[token_head * knn + j]);
          indices[j] = set == 0 ? row : column;
        }
        backward.add_token(t, indices.data(), grad_data + token_head * knn, knn, set_keys, half,
                           grad_query.mutable_data_ptr<float>() + token_head * d + set * half);
      }
      backward.write_keys(query.const_data_ptr<float>() + h * d + set * half, H * d, half,
                          grad_keys.mutable_data_ptr<float>() + unit * n * half);
    }
  });
  return {grad_query.to(query_in.scalar_type()), grad_keys.to(keys_in.scalar_type())};
}

}  // namespace memlayers::ops::cpu

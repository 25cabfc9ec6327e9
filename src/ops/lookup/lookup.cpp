// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/borrowed.h"
#include "ops/lookup/best_cells.h"
#include "ops/lookup/one_thread.h"
#include "ops/lookup/screened_lookup.h"
#include "ops/torch/operators.h"

namespace memlayers::ops::cpu {
namespace {

// Tokens whose scores against one set of sub-keys are computed by one product: as many as make the
// product fast (it packs the sub-keys anew each time), few enough for their scores, 2 MiB at most,
// to be in the cache when the best are chosen.
std::int64_t tokens_a_block(std::int64_t n_keys) {
  constexpr std::int64_t kBlockScores = 1 << 19, kFastest = 128;  // docs/performance.md
  return std::clamp<std::int64_t>(kBlockScores / n_keys, 16, kFastest);
}

// The lookup of blocks of tokens under one head.
class BlockLookup {
 public:
  BlockLookup(std::int64_t block, std::int64_t n_keys, std::int64_t half, std::int64_t knn,
              const ScreenedKeys& screened)
      : n_keys_(n_keys),
        half_(half),
        knn_(knn),
        all_screened_(screened),
        cells_(n_keys, knn),
        scores_(at::empty({block, n_keys}, at::TensorOptions().dtype(at::kFloat))),
        best_(2 * block * knn),
        index_(2 * block * knn) {
    if (!screened.empty()) {
      screened_.emplace(screened.screen(), block, n_keys, half, knn,
                        scores_.mutable_data_ptr<float>());
    }
  }

  // query: the first of `count` queries of width 2 * half, `stride` apart; keys [H, 2, n, half].
  void score(const float* query, std::int64_t stride, std::int64_t count, const float* keys,
             std::int64_t head) {
    for (std::int64_t set = 0; set < 2; ++set) {
      const float* q = query + set * half_;
      const float* k = keys + (head * 2 + set) * n_keys_ * half_;
      std::int64_t done = 0;
      if (all_screened_.has(head * 2 + set)) {
        done = screened_->run(q, stride, count, k, all_screened_.set(head * 2 + set),
                              [&](std::int64_t t, const float* scores, const std::int32_t* keys_of,
                                  std::int64_t m) { select(set, t, scores, keys_of, m); });
      }
      if (done < count) score_all(set, q, stride, done, count, k);
    }
  }
  // What score() found for its t-th query.
  void combine(std::int64_t t, float* scores, std::int64_t* slots) {
    cells_.combine(best(0, t), index(0, t), best(1, t), index(1, t), scores, slots);
  }

 private:
  // The best of m keys' scores; keys_of (m): which keys they are.
  void select(std::int64_t set, std::int64_t t, const float* scores, const std::int32_t* keys_of,
              std::int64_t m) {
    std::int32_t* const found = index(set, t);
    cells_.select(scores, m, best(set, t), found);
    for (std::int64_t j = 0; j < knn_; ++j) found[j] = keys_of[found[j]];
  }
  // The best of all keys, for queries [first, last) of those at `query`.
  void score_all(std::int64_t set, const float* query, std::int64_t stride, std::int64_t first,
                 std::int64_t last, const float* keys) {
    const at::Tensor q = borrowed(query + first * stride, {last - first, half_}, {stride, 1});
    const at::Tensor k = borrowed(keys, {half_, n_keys_}, {1, half_});
    at::Tensor out = scores_.narrow(0, 0, last - first);
    at::mm_out(out, q, k);
    for (std::int64_t t = first; t < last; ++t) {
      cells_.select(scores_.const_data_ptr<float>() + (t - first) * n_keys_, n_keys_, best(set, t),
                    index(set, t));
    }
  }
  float* best(std::int64_t set, std::int64_t t) { return best_.data() + (2 * t + set) * knn_; }
  std::int32_t* index(std::int64_t set, std::int64_t t) {
    return index_.data() + (2 * t + set) * knn_;
  }

  std::int64_t n_keys_, half_, knn_;
  const ScreenedKeys& all_screened_;
  BestCells cells_;
  at::Tensor scores_;
  std::optional<ScreenedLookup> screened_;
  std::vector<float> best_;
  std::vector<std::int32_t> index_;
};

std::tuple<at::Tensor, at::Tensor> find(const at::Tensor& query_in, const at::Tensor& keys_in,
                                        std::int64_t knn, bool as_weights) {
  const at::Tensor query = query_in.to(at::kFloat).contiguous();
  const at::Tensor keys = keys_in.to(at::kFloat).contiguous();
  const std::int64_t T = query.size(0), H = query.size(1), d = query.size(2), n = keys.size(2);
  at::Tensor slots = at::empty({T, H, knn}, query.options().dtype(at::kLong));
  at::Tensor scores = at::empty({T, H, knn}, query.options());
  if (T == 0 || H == 0) return {scores, slots};

  // Of one head two blocks at least, so that it has work for two threads.
  const std::int64_t block = std::min(H == 1 ? (T + 1) / 2 : T, tokens_a_block(n));
  const std::int64_t units = (T + block - 1) / block * H;
  const float* query_data = query.const_data_ptr<float>();
  const float* keys_data = keys.const_data_ptr<float>();
  std::int64_t* slots_data = slots.mutable_data_ptr<std::int64_t>();
  float* scores_data = scores.mutable_data_ptr<float>();

  const ScreenedKeys screened(keys, T);
  // One unit is a block of tokens under one head. Its products run on one thread, so that results
  // do not depend on how many there are.
  const std::int64_t steps = std::max<std::int64_t>(units, 2);  // parallel_for makes no part of one
  at::parallel_for(0, steps, 1, [&](std::int64_t begin, std::int64_t end) {
    end = std::min(end, units);
    if (begin >= end) return;
    const at::AutoDispatchBelowADInplaceOrView guard;
    const OneThreadProducts one_thread;
    BlockLookup lookup(block, n, d / 2, knn, screened);
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t h = unit % H, first = unit / H * block;
      const std::int64_t count = std::min(block, T - first);
      lookup.score(query_data + (first * H + h) * d, H * d, count, keys_data, h);
      for (std::int64_t t = 0; t < count; ++t) {
        const std::int64_t at = ((first + t) * H + h) * knn;
        lookup.combine(t, scores_data + at, slots_data + at);
        if (as_weights) kernels::active().softmax(scores_data + at, knn, scores_data + at);
      }
    }
  });
  return {scores, slots};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> lookup(const at::Tensor& query, const at::Tensor& keys,
                                          std::int64_t knn) {
  return find(query, keys, knn, /*as_weights=*/false);
}

std::tuple<at::Tensor, at::Tensor> lookup_softmax(const at::Tensor& query, const at::Tensor& keys,
                                                  std::int64_t knn) {
  return find(query, keys, knn, /*as_weights=*/true);
}

}  // namespace memlayers::ops::cpu

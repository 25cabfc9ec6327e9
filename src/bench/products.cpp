// SPDX-License-Identifier: Apache-2.0
#include "bench/products.h"

#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>

namespace memlayers::bench {

ScoreProducts::ScoreProducts(std::int64_t tokens, const MemoryConfig& memory)
    : scores_(torch::empty({memory.heads * 2, tokens, memory.n_keys})),
      blocks_(torch::empty({at::get_num_threads(), kBlock, memory.n_keys})),
      operations_(2.0 * static_cast<double>(tokens * memory.heads) *
                  static_cast<double>(memory.n_keys * memory.k_dim)) {}

void ScoreProducts::measure(const at::Tensor& query, const at::Tensor& keys, bool is_kept) {
  const torch::NoGradGuard no_grad;
  const std::int64_t T = query.size(0), H = query.size(1), half = query.size(2) / 2;
  // Strided views: [H * 2, T, half] and [H * 2, half, n_keys].
  const at::Tensor halves = query.view({T, H * 2, half}).transpose(0, 1);
  const at::Tensor columns = keys.flatten(0, 1).transpose(1, 2);
  const std::array<double, 3> seconds{
      seconds_of([&] { batched(halves, columns); }),
      seconds_of([&] { one_by_one(halves, columns); }),
      seconds_of([&] { in_blocks(halves, columns); }),
  };
  for (std::size_t i = 0; is_kept && i < seconds.size(); ++i) times_[i].add(seconds[i]);
}

const Times& ScoreProducts::fastest() const {
  return *std::min_element(times_.begin(), times_.end(),
                           [](const Times& a, const Times& b) { return a.best() < b.best(); });
}

double ScoreProducts::operations() const { return operations_; }

void ScoreProducts::batched(const at::Tensor& halves, const at::Tensor& keys) {
  at::bmm_out(scores_, halves, keys);
}

void ScoreProducts::one_by_one(const at::Tensor& halves, const at::Tensor& keys) {
  for (std::int64_t i = 0; i < halves.size(0); ++i) {
    at::Tensor out = scores_[i];
    at::mm_out(out, halves[i], keys[i]);
  }
}

// A block of tokens a time, into memory that stays in the cache: one thread a block.
void ScoreProducts::in_blocks(const at::Tensor& halves, const at::Tensor& keys) {
  const std::int64_t tokens = halves.size(1), blocks = (tokens + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks * halves.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    const torch::NoGradGuard no_grad;
    const at::Tensor block = blocks_[at::get_thread_num()];
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t i = unit % halves.size(0), first = unit / halves.size(0) * kBlock;
      const std::int64_t count = std::min(kBlock, tokens - first);
      at::Tensor out = block.narrow(0, 0, count);
      at::mm_out(out, halves[i].narrow(0, first, count), keys[i]);
    }
  });
}

LinearProducts::LinearProducts(const MemoryLayer& layer, std::int64_t tokens) : tokens_(tokens) {
  for (const at::ScalarType type : {layer->query_proj->weight.scalar_type(), at::kFloat}) {
    if (!ways_.empty() && ways_.front().front().weight.scalar_type() == type) break;
    std::vector<Part>& parts = ways_.emplace_back();
    for (const auto& module : layer->modules(/*include_self=*/false)) {
      const auto* linear = module->as<Linear>();
      if (linear == nullptr) continue;
      const at::Tensor weight = linear->weight.detach().to(type);
      parts.push_back({weight, torch::empty({tokens, weight.size(0)}, weight.options()),
                       torch::empty({tokens, weight.size(1)}, weight.options()),
                       torch::empty_like(weight)});
    }
  }
}

void LinearProducts::measure(bool is_kept) {
  if (ways_.size() > 1) {
    if (seconds_of_all(ways_[0]) > seconds_of_all(ways_[1])) std::swap(ways_[0], ways_[1]);
    ways_.resize(1);
  }
  const double seconds = seconds_of_all(ways_.front());
  if (is_kept) times_.add(seconds);
}

double LinearProducts::seconds_of_all(std::vector<Part>& parts) const {
  const torch::NoGradGuard no_grad;
  double seconds = 0;
  for (Part& part : parts) {
    const auto type = part.weight.scalar_type();
    const at::Tensor x = torch::randn({tokens_, part.weight.size(1)}).to(type);
    const at::Tensor grad = torch::randn({tokens_, part.weight.size(0)}).to(type);
    seconds += seconds_of([&] {
      at::mm_out(part.y, x, part.weight.t());
      at::mm_out(part.grad_x, grad, part.weight);
      at::mm_out(part.grad_weight, grad.t(), x);
    });
  }
  return seconds;
}

}  // namespace memlayers::bench

// SPDX-License-Identifier: Apache-2.0
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <vector>

#include "bench/subjects.h"

namespace memlayers::bench {
namespace {

constexpr std::int64_t kCachedRows = 16;

}  // namespace

Figures bench_gather(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens, J = memory.heads * memory.knn;
  stream.measure();
  MemoryPool pool = make_pool(c);
  pool->eval();
  pool->values.requires_grad_(false);  // the rows' gradient is bench_update's
  IndexDraw slots_of(pool->slots(), c.distribution, kSeed);
  const at::Tensor weights = draw_weights(c);
  const at::Tensor x = torch::randn({T, c.config.model.dim});  // PEER's
  const at::Tensor grad = torch::randn({T, c.config.model.value_dim()});

  std::vector<at::Tensor> slot_sets;
  for (int i = 0; i < c.repeat; ++i) slot_sets.push_back(slots_of.draw({T, J}));
  Times gather, dots;
  const auto time = [&](const at::Tensor& slots, bool counts) {
    const auto seconds_cold = [&](const auto& f) {
      stream.flush_cache();
      // What the operators before this one have just made.
      for (const at::Tensor& made : {x, slots, weights, grad}) warm(made);
      return seconds_of(f);
    };
    const at::Tensor w = weights.detach().requires_grad_();
    const at::Tensor y = gather_rows(c, pool, x, slots, w);
    const double dots_s = seconds_cold([&] { torch::autograd::grad({y}, {w}, {grad}); });
    const torch::NoGradGuard no_grad;
    const double gather_s = seconds_cold([&] { gather_rows(c, pool, x, slots, weights); });
    if (!counts) return;
    dots.add(dots_s);
    gather.add(gather_s);
  };
  time(slots_of.draw({T, J}), false);
  const double limit = random_row_gbs(stream, pool->values, slot_sets,
                                      [&](std::size_t set) { time(slot_sets[set], true); });
  stream.measure();
  // Rows that the first two levels of caches hold: what is left is the arithmetic.
  const at::Tensor cached_slots =
      torch::randint(std::min(kCachedRows, pool->slots()), {T, J}, torch::kLong);
  Times cached;
  for (int i = -1; i < c.repeat; ++i) {
    const torch::NoGradGuard no_grad;
    const double seconds = seconds_of([&] { gather_rows(c, pool, x, cached_slots, weights); });
    if (i >= 0) cached.add(seconds);
  }
  const double gigabytes = static_cast<double>(T * J * row_bytes(pool)) / 1e9;

  Figures figures;
  figures.add("gather", gather);
  figures.add("gather_gbs", gigabytes / gather.best());
  figures.add("random_row_gbs", limit);
  figures.add("gather_ratio", gigabytes / gather.best() / limit);
  figures.add("cached_gather_gbs", gigabytes / cached.best());
  figures.add("weights_backward", dots);
  figures.add("weights_backward_gbs", gigabytes / dots.best());
  figures.add("weights_backward_ratio", gigabytes / dots.best() / limit);
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("gemm_gflops", gemm_gflops(memory.k_dim / 2));
  return figures;
}

}  // namespace memlayers::bench

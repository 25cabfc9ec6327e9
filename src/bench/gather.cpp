// SPDX-License-Identifier: Apache-2.0
#include <torch/torch.h>

#include <vector>

#include "bench/parts.h"

namespace memlayers::bench {

Figures bench_gather(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens, J = memory.heads * memory.knn;
  stream.measure();
  MemoryPool pool = make_pool(c);
  pool->eval();
  pool->values.requires_grad_(false);  // the rows' gradient is bench_update's
  IndexDraw slots_of(pool->slots(), c.distribution, kSeed);
  const at::Tensor weights = draw_weights(c);
  const at::Tensor grad = torch::randn({T, pool->width()});

  std::vector<at::Tensor> slot_sets;
  Times gather, dots;
  for (int i = -1; i < c.repeat; ++i) {
    const at::Tensor slots = slots_of.draw({T, J});
    const auto in_cache = [&] {  // what the operators before this one have just made
      stream.flush_cache();
      for (const at::Tensor& made : {slots, weights, grad}) warm(made);
    };
    {
      const torch::NoGradGuard no_grad;
      in_cache();
      const double seconds = seconds_of([&] { pool->gather(slots, weights); });
      if (i >= 0) gather.add(seconds);
    }
    const at::Tensor w = weights.detach().requires_grad_();
    const at::Tensor y = pool->gather(slots, w);
    in_cache();
    const double seconds = seconds_of([&] { torch::autograd::grad({y}, {w}, {grad}); });
    if (i >= 0) dots.add(seconds);
    slot_sets.push_back(slots);
  }
  const double limit = random_row_gbs(stream, pool->values, slot_sets);
  stream.measure();
  const double gigabytes = static_cast<double>(T * J * row_bytes(pool)) / 1e9;

  Figures figures;
  figures.add("gather", gather);
  figures.add("gather_gbs", gigabytes / gather.best());
  figures.add("random_row_gbs", limit);
  figures.add("gather_ratio", gigabytes / gather.best() / limit);
  figures.add("weights_backward", dots);
  figures.add("weights_backward_gbs", gigabytes / dots.best());
  figures.add("weights_backward_ratio", gigabytes / dots.best() / limit);
  figures.add("stream_gbs", stream.read_gbs());
  return figures;
}

}  // namespace memlayers::bench

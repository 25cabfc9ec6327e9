// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <algorithm>

#include "bench/subjects.h"
#include "memlayers/ops.h"

namespace memlayers::bench {

Figures bench_update(const Case& c, Stream& stream) {
  const MemoryConfig& memory = *c.config.model.memory;
  const std::int64_t T = c.tokens, J = memory.heads * memory.knn;
  stream.measure();
  MemoryPool pool = make_pool(c);
  const auto optimizer = make_row_optimizer(c, pool);
  IndexDraw slots_of(pool->slots(), c.distribution, kSeed);
  const at::Tensor weights = draw_weights(c);

  std::vector<at::Tensor> slot_sets, touched_sets;
  for (int i = 0; i < c.repeat; ++i) {
    slot_sets.push_back(slots_of.draw({T, J}));
    touched_sets.push_back(std::get<0>(at::_unique(slot_sets.back())));
  }
  Times grouping, update;
  double most_bytes_a_second = 0, touched = 0, bytes = 0;
  const auto time = [&](const at::Tensor& slots, bool counts) {
    record_gradient(pool, slots, weights);
    const auto in_cache = [&] {  // what backward has just made
      stream.flush_cache();
      for (const FactoredGradient& part : pool->gradient()) {
        for (const at::Tensor& made : {part.slots, part.weights, part.rows}) warm(made);
      }
    };
    in_cache();
    const double group_s =
        seconds_of([&] { group(pool->gradient(), pool->slots(), pool->width()); });
    in_cache();
    RowOptimizer::StepResult result;
    const double update_s = seconds_of([&] { result = optimizer->step(c.config.train.value_lr); });
    if (!counts) return;
    grouping.add(group_s);
    update.add(update_s);
    // Each touched row and its state, read and written; the factors of the gradient, read.
    const double rows = static_cast<double>(result.touched_rows);
    const double factors = static_cast<double>(T * J) * (sizeof(std::int64_t) + sizeof(float)) +
                           static_cast<double>(T * pool->width()) * sizeof(float);
    const double moved =
        2 * rows * static_cast<double>(touched_bytes_a_row(pool, *optimizer)) + factors;
    if (moved / update_s > most_bytes_a_second) {
      most_bytes_a_second = moved / update_s;
      touched = rows;
      bytes = moved;
    }
  };
  time(slots_of.draw({T, J}), false);
  const double limit = random_update_gbs(stream, row_tables(pool, *optimizer), touched_sets,
                                         [&](std::size_t set) { time(slot_sets[set], true); });
  const double random_rows = random_row_gbs(stream, pool->values, slot_sets.back());
  stream.measure();

  Figures figures;
  figures.add("update", update);
  figures.add("group", grouping);
  figures.add("touched_rows", touched);
  figures.add("update_bytes", bytes);
  figures.add("update_gbs", most_bytes_a_second / 1e9);
  figures.add("stream_gbs", stream.read_gbs());
  figures.add("update_ratio", most_bytes_a_second / 1e9 / stream.read_gbs());
  figures.add("stream_update_gbs", stream.update_gbs());
  figures.add("random_update_gbs", limit);
  figures.add("limit_ratio", most_bytes_a_second / 1e9 / limit);
  figures.add("random_row_gbs", random_rows);
  figures.add("gemm_gflops", gemm_gflops(memory.k_dim / 2));
  return figures;
}

}  // namespace memlayers::bench

// SPDX-License-Identifier: Apache-2.0
#include "bench/least_exchange.h"

#include <algorithm>

#include "pool/row_format.h"

namespace memlayers::bench {

std::vector<std::int64_t> row_sections(const ModelConfig& model) {
  const std::int64_t v = model.value_dim(), u = model.row_width() - v;
  return u == 0 ? std::vector{v} : std::vector{u, v};
}

PoolSplit automatic_split(const ModelConfig& model, int processes) {
  const std::int64_t width = std::ranges::min(row_sections(model));
  return choose_split(width, pool::row_format(model.memory->row_dtype, width).element_bytes,
                      processes);
}

StepExchange least_exchange(const ModelConfig& model, double dense_parameters, double tokens,
                            PoolSplit split) {
  constexpr double kNumber = 4;  // bytes of a slot, a weight, a float32
  const double R = static_cast<double>(split.column_parts) * split.row_parts;
  StepExchange traffic;
  if (R == 1) return traffic;
  traffic.dense_bytes = 2 * (R - 1) / R * dense_parameters * kNumber;
  traffic.rounds = 2;
  const auto layers = static_cast<double>(model.memory_layers().size());
  if (layers == 0) return traffic;
  const MemoryConfig& memory = *model.memory;
  const bool is_peer = memory.variant == MemoryVariant::kPeer;
  const double own_tokens = tokens / R;
  // A row lies in the parts of the columns; a process has one of the R parts itself.
  const double reads = own_tokens * static_cast<double>(memory.heads * memory.knn);
  const double holders = (R - 1) / split.row_parts;  // of a row, this process left out
  // Numbers in parts of the sums (PEER: and of the inputs), and of their gradients.
  const double slices =
      2 * own_tokens * (R - 1) * static_cast<double>(model.row_width()) / split.column_parts;
  traffic.pool_bytes = layers * (slices + reads * holders * (is_peer ? 5 : 3)) * kNumber;
  traffic.rounds += layers * (is_peer ? 9 : 5);
  return traffic;
}

}  // namespace memlayers::bench

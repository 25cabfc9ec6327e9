// SPDX-License-Identifier: Apache-2.0
#include "bench/traffic.h"

#include <cmath>

#include "memlayers/error.h"

namespace memlayers::bench {

StepTraffic least_traffic(const ModelConfig& model, double dense_parameters, double tokens,
                          PoolSplit split) {
  constexpr double kNumber = 4;  // bytes of a slot, a weight, a float32
  const double R = static_cast<double>(split.column_parts) * split.row_parts;
  StepTraffic traffic;
  if (R == 1) return traffic;
  traffic.dense_bytes = 2 * (R - 1) / R * dense_parameters * kNumber;
  traffic.rounds = 2;
  const auto layers = static_cast<double>(model.memory_layers().size());
  if (layers == 0) return traffic;
  const MemoryConfig& memory = *model.memory;
  if (memory.variant == MemoryVariant::kPeer) {
    throw Error("expected the variant memory+ or plain, whose traffic is counted, got peer");
  }
  const double own_tokens = tokens / R;
  // A row lies in the parts of the columns; a process has one of the R parts itself.
  const double reads = own_tokens * static_cast<double>(memory.heads * memory.knn);
  const double holders = (R - 1) / split.row_parts;  // of a row, this process left out
  const double slices = own_tokens * (R - 1) * static_cast<double>(model.value_dim()) /
                        split.column_parts;  // numbers of the sums' parts
  const double forward = reads * holders * 2 + slices;
  const double backward = slices + reads * holders;
  traffic.pool_bytes = layers * (forward + backward) * kNumber;
  traffic.rounds += layers * 5;
  return traffic;
}

}  // namespace memlayers::bench

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/llama.h"

namespace memlayers {

Flops count_flops(const ModelConfig& config, std::int64_t context) {
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  const double dim = number(config.dim);
  const double q = number(config.heads * config.attention_head_dim());
  const double kv = number(config.num_kv_heads() * config.attention_head_dim());
  const double seen = (number(context) + 1) / 2;  // mean length of what a causal query sees

  Flops flops;
  flops.attention = number(config.layers) * 2 * (dim * (2 * q + 2 * kv) + 2 * q * seen);
  flops.logits = 2 * dim * number(config.vocab_size);
  const auto memory_layers = number(static_cast<std::int64_t>(config.memory_layers().size()));
  double feed_forwards = number(config.layers);
  if (memory_layers > 0) {
    const MemoryConfig& memory = *config.memory;
    const bool is_plus = memory.variant == MemoryVariant::kMemoryPlus;
    const double v = number(config.value_dim()), heads = number(memory.heads);
    double layer = dim * heads * number(memory.k_dim);              // query
    layer += heads * number(memory.n_keys) * number(memory.k_dim);  // both score products
    layer +=
        heads * number(memory.knn) * number(config.row_width());  // weighted sum; PEER: and x . U
    if (is_plus) layer += dim * v + v;
    if (memory.value_proj.value_or(is_plus || config.value_dim() != config.dim)) layer += v * dim;
    if (memory.gate) layer += dim;
    flops.memory = memory_layers * 2 * layer;
    if (memory.placement == MemoryPlacement::kReplace) feed_forwards -= memory_layers;
  }
  flops.feed_forward = feed_forwards * 2 * 3 * dim * number(config.ff_dim);
  return flops;
}

}  // namespace memlayers

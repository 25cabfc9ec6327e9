// SPDX-License-Identifier: Apache-2.0
#include "memlayers/llama.h"

#include <algorithm>

namespace memlayers {

Flops count_flops(const ModelConfig& config, std::int64_t context) {
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  const double dim = number(config.dim);
  const double q = number(config.heads * config.attention_head_dim());
  const double kv = number(config.num_kv_heads() * config.attention_head_dim());
  Flops flops;
  flops.attention = number(config.layers) * 2 * dim * (2 * q + 2 * kv);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    // Mean length of what a causal query sees.
    const double C = number(context),
                 W = std::min(C, number(config.window_of(layer).value_or(context)));
    flops.attention += 2 * 2 * q * (W * (W + 1) / 2 + (C - W) * W) / C;
  }
  flops.logits = 2 * dim * number(config.vocab_size);
  const auto memory_layers = number(static_cast<std::int64_t>(config.memory_layers().size()));
  double feed_forwards = number(config.layers);
  if (memory_layers > 0) {
    const MemoryConfig& memory = *config.memory;
    const double v = number(config.value_dim()), heads = number(memory.heads);
    double layer = 0;
    if (memory.is_ngram()) {
      layer += v * dim + dim;  // the gate's key, and its product with x
    } else {
      layer += dim * heads * number(memory.k_dim);                    // query
      layer += heads * number(memory.n_keys) * number(memory.k_dim);  // both score products
    }
    layer +=
        heads * number(memory.knn) * number(config.row_width());  // weighted sum; PEER: and x . U
    if (memory.has_swilu()) layer += dim * v + v;
    if (memory.has_value_proj(config.dim)) layer += v * dim;
    if (memory.gate) layer += memory.gate_dim ? (dim + 1) * number(*memory.gate_dim) : dim;
    flops.memory = memory_layers * 2 * layer;
    if (memory.placement == MemoryPlacement::kReplace) feed_forwards -= memory_layers;
  }
  const double choice = config.experts > 1 ? dim * number(config.experts) : 0;  // of one of them
  flops.feed_forward = feed_forwards * 2 * (3 * dim * number(config.ff_dim) + choice);
  return flops;
}

}  // namespace memlayers

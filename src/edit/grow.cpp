// SPDX-License-Identifier: Apache-2.0
#include "memlayers/grow.h"

#include <map>

namespace memlayers {

Llama grow(const Llama& model, std::int64_t n_keys, std::uint64_t seed) {
  MemoryPool before = model->pool();
  ModelConfig config = model->config();
  TORCH_CHECK_VALUE(!before.is_empty() && config.memory,
                    "grow: expected a model with memory layers, got none");
  TORCH_CHECK_VALUE(!before->snapshot() && !before->is_sharded(),
                    "grow: expected a model that holds all of its pool");
  MemoryConfig& memory = *config.memory;
  TORCH_CHECK_VALUE(n_keys > memory.n_keys, "grow: expected more sub-keys than the ", memory.n_keys,
                    " of the model, got ", n_keys);
  memory.open_keys = memory.open_keys.value_or(memory.n_keys);
  memory.n_keys = n_keys;
  Llama grown(config, seed);
  const torch::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> from;
  for (const auto& [name, tensor] : model->dense_parameters()) from.emplace(name, tensor);
  for (auto& [name, tensor] : grown->dense_parameters()) {
    const at::Tensor& old = from.at(name);
    // Only sub-keys [H, 2, n_keys, k_dim / 2] have another shape.
    at::Tensor to = tensor.sizes() == old.sizes() ? tensor : tensor.slice(2, 0, old.size(2));
    to.copy_(old);
  }
  MemoryPool pool = grown->pool();
  before->catch_up();
  pool->values.detach().slice(0, 0, before->slots()).copy_(before->values.detach());
  pool->id = before->id;
  at::Tensor usage = at::zeros({pool->slots()}, at::kLong);
  usage.slice(0, 0, before->slots()).copy_(before->usage());
  pool->set_usage(usage);
  return grown;
}

}  // namespace memlayers

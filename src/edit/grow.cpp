// SPDX-License-Identifier: Apache-2.0
#include "memlayers/grow.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <map>

#include "edit/grown.h"

namespace memlayers {

ModelConfig edit::grown(ModelConfig config, std::int64_t n_keys) {
  MemoryConfig& memory = *config.memory;
  memory.open_keys = memory.open_keys.value_or(memory.n_keys);
  memory.n_keys = n_keys;
  return config;
}

void edit::copy_weights(const Llama& model, Llama& grown, std::uint64_t seed) {
  const torch::NoGradGuard no_grad;
  // Of the size too: a second growth of the same seed must not draw the first one's keys again.
  at::Generator random = at::detail::createCPUGenerator(
      seed + static_cast<std::uint64_t>(grown->config().memory->n_keys));
  const double bound = 1 / std::sqrt(static_cast<double>(model->config().memory->k_dim));
  std::map<std::string, at::Tensor> from;
  for (const auto& [name, tensor] : model->dense_parameters()) from.emplace(name, tensor);
  for (auto& [name, tensor] : grown->dense_parameters()) {
    const at::Tensor& old = from.at(name);
    at::Tensor to = tensor;
    if (tensor.sizes() != old.sizes()) {  // sub-keys [H, 2, n_keys, k_dim / 2]
      tensor.uniform_(-bound, bound, random);
      to = tensor.slice(2, 0, old.size(2));
    }
    to.copy_(old);
  }
}

Llama grow(const Llama& model, std::int64_t n_keys, std::uint64_t seed) {
  MemoryPool before = model->pool();
  TORCH_CHECK_VALUE(!before.is_empty() && model->config().memory,
                    "grow: expected a model with memory layers, got none");
  TORCH_CHECK_VALUE(!before->snapshot() && !before->is_sharded(),
                    "grow: expected a model that holds all of its pool");
  TORCH_CHECK_VALUE(n_keys > model->config().memory->n_keys,
                    "grow: expected more sub-keys than the ", model->config().memory->n_keys,
                    " of the model, got ", n_keys);
  Llama grown(edit::grown(model->config(), n_keys), seed);
  edit::copy_weights(model, grown, seed);
  const torch::NoGradGuard no_grad;
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

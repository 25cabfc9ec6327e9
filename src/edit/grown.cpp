// SPDX-License-Identifier: Apache-2.0
#include "edit/grown.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <map>
#include <string>

namespace memlayers::edit {

ModelConfig grown(ModelConfig config, std::int64_t n_keys) {
  MemoryConfig& memory = *config.memory;
  memory.open_keys = memory.open_keys.value_or(memory.n_keys);
  memory.n_keys = n_keys;
  return config;
}

void copy_weights(const Llama& model, Llama& grown, std::uint64_t seed) {
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

}  // namespace memlayers::edit

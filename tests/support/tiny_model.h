// SPDX-License-Identifier: Apache-2.0
// A model that fits a test, with a tokenizer trained on a few sentences.
#pragma once

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <memory>
#include <string>
#include <vector>

#include "memlayers/generator.h"

namespace memlayers::testing {

inline std::shared_ptr<const Tokenizer> tiny_tokenizer() {
  static const auto tokenizer = train_tokenizer(
      {"the red otter has number one hundred", "the blue maple has number two hundred",
       "a green comet came over the harbour at night", "the glacier and the falcon, the lantern"},
      300);
  return tokenizer;
}

inline ModelConfig tiny_model_config() {
  ModelConfig config;
  config.dim = 32;
  config.layers = 2;
  config.heads = 2;
  config.ff_dim = 48;
  config.vocab_size = 300;
  config.context = 40;
  config.memory.emplace();
  config.memory->layers = std::vector<std::int64_t>{1};
  config.memory->n_keys = 6;
  config.memory->heads = 2;
  config.memory->knn = 3;
  config.memory->k_dim = 16;
  return config;
}

// Random weights, large enough that the most likely token varies with the text.
inline Generator tiny_generator(const ModelConfig& config = tiny_model_config(), int seed = 3) {
  at::set_num_threads(1);  // more only get in each other's way in a model this small
  torch::manual_seed(seed);
  Llama model(config);
  const torch::NoGradGuard no_gradient;
  for (auto& [name, tensor] : model->dense_parameters()) {
    if (tensor.dim() == 2) tensor.mul_(8);
  }
  return {model, tiny_tokenizer()};
}

}  // namespace memlayers::testing

// SPDX-License-Identifier: Apache-2.0
// A run small enough to take a second.
#pragma once

#include <gtest/gtest.h>
#include <torch/types.h>

#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/trainer.h"

namespace memlayers::testing {

// Forty facts as JSONL: prompt and answer.
inline void write_facts(const std::string& path) {
  static const char* const kThings[] = {"otter",  "maple",   "quartz",  "violin",  "comet",
                                        "barley", "harbour", "lantern", "glacier", "falcon"};
  static const char* const kColours[] = {"red", "blue", "green", "amber"};
  std::string text;
  int n = 0;
  for (const char* thing : kThings) {
    for (const char* colour : kColours) {
      text += std::string(R"({"prompt": "the )") + colour + " " + thing +
              R"( has number", "answer": ")" + std::to_string(100 + 37 * n++ % 900) + "\"}\n";
    }
  }
  io::write_atomic(io::posix(), path, text);
}

inline TrainConfig tiny_config(const std::string& out, const std::string& facts) {
  TrainConfig config;
  config.out = out;
  config.model.dim = 32;
  config.model.layers = 2;
  config.model.heads = 2;
  config.model.ff_dim = 48;
  config.model.vocab_size = 300;
  config.model.context = 48;
  config.model.memory = MemoryConfig{};
  config.model.memory->layers = std::vector<std::int64_t>{1};
  config.model.memory->n_keys = 10;
  config.model.memory->heads = 2;
  config.model.memory->knn = 4;
  config.model.memory->k_dim = 16;
  config.data.train = {facts};
  config.data.pack = false;
  config.train.steps = 8;
  config.train.batch_tokens = 256;
  config.train.lr = 3e-3;
  config.train.value_lr = 1e-2;
  config.train.warmup = 2;
  config.train.threads = 1;
  config.train.log_every = 1;
  config.train.seed = 5;
  return config;
}

// Every number that training changes, by name.
inline std::vector<std::pair<std::string, at::Tensor>> weights(Llama& model) {
  auto named = model->dense_parameters();
  if (!model->pool().is_empty()) {
    named.emplace_back("pool", model->pool()->values);
    named.emplace_back("usage", model->pool()->usage());
  }
  for (auto& [name, tensor] : named) tensor = tensor.detach().clone();
  return named;
}

inline void expect_same_bits(const std::vector<std::pair<std::string, at::Tensor>>& a,
                             const std::vector<std::pair<std::string, at::Tensor>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].first, b[i].first);
    EXPECT_TRUE(a[i].second.equal(b[i].second)) << a[i].first;
  }
}

}  // namespace memlayers::testing

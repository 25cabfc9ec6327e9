// SPDX-License-Identifier: Apache-2.0
// The families of decoders of Hugging Face that are read: what a config.json means that leaves
// fields out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "memlayers/config.h"

namespace memlayers::io {

enum class ModelFamily { kLlama, kMistral, kQwen2, kQwen3, kSmolLm3 };

// Defaults of transformers' configuration class, under the names of its fields.
struct FamilyDefaults {
  ModelFamily family;
  const char* model_type;
  const char* architecture;
  std::int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
  std::optional<std::int64_t> num_key_value_heads;  // none: as many as attention heads
  std::optional<std::int64_t> head_dim;             // none: hidden_size / num_attention_heads
  std::int64_t vocab_size, max_position_embeddings;
  double rms_norm_eps, rope_theta;
  bool tie_word_embeddings;
};

std::span<const FamilyDefaults> families();
const FamilyDefaults& defaults_of(ModelFamily family);

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
#include "io/model_family.h"

#include <algorithm>
#include <array>

namespace memlayers::io {
namespace {

constexpr std::array<FamilyDefaults, 5> kFamilies{{
    {.family = ModelFamily::kLlama,
     .model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .hidden_size = 4096,
     .intermediate_size = 11008,
     .num_hidden_layers = 32,
     .num_attention_heads = 32,
     .num_key_value_heads = {},
     .head_dim = {},
     .vocab_size = 32000,
     .max_position_embeddings = 2048,
     .rms_norm_eps = 1e-6,
     .rope_theta = 10000,
     .tie_word_embeddings = false},
    {.family = ModelFamily::kMistral,
     .model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .hidden_size = 4096,
     .intermediate_size = 14336,
     .num_hidden_layers = 32,
     .num_attention_heads = 32,
     .num_key_value_heads = 8,
     .head_dim = {},
     .vocab_size = 32000,
     .max_position_embeddings = 131072,
     .rms_norm_eps = 1e-6,
     .rope_theta = 10000,
     .tie_word_embeddings = false},
    {.family = ModelFamily::kQwen2,
     .model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .hidden_size = 4096,
     .intermediate_size = 22016,
     .num_hidden_layers = 32,
     .num_attention_heads = 32,
     .num_key_value_heads = 32,
     .head_dim = {},
     .vocab_size = 151936,
     .max_position_embeddings = 32768,
     .rms_norm_eps = 1e-6,
     .rope_theta = 10000,
     .tie_word_embeddings = false},
    {.family = ModelFamily::kQwen3,
     .model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .hidden_size = 4096,
     .intermediate_size = 22016,
     .num_hidden_layers = 32,
     .num_attention_heads = 32,
     .num_key_value_heads = 32,
     .head_dim = 128,
     .vocab_size = 151936,
     .max_position_embeddings = 32768,
     .rms_norm_eps = 1e-6,
     .rope_theta = 10000,
     .tie_word_embeddings = false},
    {.family = ModelFamily::kSmolLm3,
     .model_type = "smollm3",
     .architecture = "SmolLM3ForCausalLM",
     .hidden_size = 2048,
     .intermediate_size = 11008,
     .num_hidden_layers = 36,
     .num_attention_heads = 16,
     .num_key_value_heads = 4,
     .head_dim = {},
     .vocab_size = 128256,
     .max_position_embeddings = 32768,
     .rms_norm_eps = 1e-6,
     .rope_theta = 2000000,
     .tie_word_embeddings = true},
}};

}  // namespace

std::span<const FamilyDefaults> families() { return kFamilies; }

const FamilyDefaults& defaults_of(ModelFamily family) {
  return *std::ranges::find(kFamilies, family, &FamilyDefaults::family);
}

}  // namespace memlayers::io

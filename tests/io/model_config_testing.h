// SPDX-License-Identifier: Apache-2.0
// The configuration of a model as a file has it, for tests that change fields.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "io/model_config.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io::testing {

inline ModelConfig read_config(const std::string& text) {
  const memlayers::testing::TempDir dir;
  memlayers::testing::write_file(dir / "config.json", text);
  return read_model_config(posix(), dir / "config.json");
}

// As transformers 4 writes it for a LLaMA 3 of small size.
inline nlohmann::json llama_config() {
  return nlohmann::json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 100, "eos_token_id": [101, 102], "hidden_act": "silu", "hidden_size": 64,
    "initializer_range": 0.02, "intermediate_size": 172, "max_position_embeddings": 131072,
    "mlp_bias": false, "model_type": "llama", "num_attention_heads": 8, "num_hidden_layers": 4,
    "num_key_value_heads": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0", "use_cache": true, "vocab_size": 128})");
}

}  // namespace memlayers::io::testing

// SPDX-License-Identifier: Apache-2.0
// config.json and generation_config.json as models of ours are saved.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/model_config.h"
#include "io/model_config_names.h"
#include "io/model_family.h"

namespace memlayers::io {
namespace {

using OrderedJson = nlohmann::ordered_json;

// The family that has all of this.
ModelFamily family_of(const ModelConfig& config) {
  const bool slides = config.sliding_window.has_value();
  if (config.attention_norm) return ModelFamily::kQwen3;
  if (config.has_attention_output_bias() != config.attention_bias) return ModelFamily::kQwen2;
  const bool is_mistral = !config.attention_bias && !config.mlp_bias && !config.sliding_layers;
  if (!config.unrotated_layers.empty() || (slides && !is_mistral)) return ModelFamily::kSmolLm3;
  return slides ? ModelFamily::kMistral : ModelFamily::kLlama;
}

OrderedJson rope_json(const RopeConfig& config) {
  OrderedJson rope = {{"rope_type", config.type}, {"rope_theta", config.theta}};
  if (config.type != "default") rope["factor"] = config.factor;
  if (config.type == "llama3") {
    rope["low_freq_factor"] = config.low_freq_factor;
    rope["high_freq_factor"] = config.high_freq_factor;
  }
  if (config.type == "llama3" || config.type == "yarn") {
    rope["original_max_position_embeddings"] = config.original_context;
  }
  if (config.type == "yarn") {
    rope["attention_factor"] = config.attention_factor;
    rope["beta_fast"] = config.beta_fast;
    rope["beta_slow"] = config.beta_slow;
    rope["truncate"] = config.truncate;
  }
  return rope;
}

void write_windows(const ModelConfig& config, ModelFamily family, OrderedJson& out) {
  if (family == ModelFamily::kLlama) return;
  if (family == ModelFamily::kMistral) {
    out["sliding_window"] = *config.sliding_window;
    return;
  }
  std::vector<std::string> types;
  std::vector<int> has_rope;
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    types.emplace_back(config.window_of(layer) ? "sliding_attention" : "full_attention");
    has_rope.push_back(std::ranges::binary_search(config.unrotated_layers, layer) ? 0 : 1);
  }
  out["use_sliding_window"] = config.sliding_window.has_value();
  out["sliding_window"] = nullptr;
  if (config.sliding_window) out["sliding_window"] = *config.sliding_window;
  out["layer_types"] = types;
  if (family == ModelFamily::kSmolLm3) out["no_rope_layers"] = has_rope;
}

void write_special_tokens(const ModelConfig& config, OrderedJson& out) {
  if (config.bos_token) out["bos_token_id"] = *config.bos_token;
  if (config.eos_tokens.size() == 1) out["eos_token_id"] = config.eos_tokens[0];
  if (config.eos_tokens.size() > 1) out["eos_token_id"] = config.eos_tokens;
  if (config.pad_token) out["pad_token_id"] = *config.pad_token;
}

}  // namespace

std::string generation_config_json(const ModelConfig& config) {
  OrderedJson out = OrderedJson::object();
  write_special_tokens(config, out);
  return out.dump(2) + "\n";
}

std::string model_config_json(const ModelConfig& config) {
  nlohmann::ordered_json out;
  // A decoder without memory layers is one of its family for every other tool too.
  const bool has_memory = !config.memory_layers().empty();
  const bool is_ours = has_memory || config.experts > 1;
  const FamilyDefaults& family = defaults_of(family_of(config));
  out["architectures"] = {is_ours ? "MemlayersForCausalLM" : family.architecture};
  out["model_type"] = is_ours ? kOurs : family.model_type;
  if (is_ours) {
    out["auto_map"] = {{"AutoConfig", "modeling_memlayers.MemlayersConfig"},
                       {"AutoModel", "modeling_memlayers.MemlayersModel"},
                       {"AutoModelForCausalLM", "modeling_memlayers.MemlayersForCausalLM"}};
  }
  out["hidden_size"] = config.dim;
  out["num_hidden_layers"] = config.layers;
  out["num_attention_heads"] = config.heads;
  out["num_key_value_heads"] = config.num_kv_heads();
  out["head_dim"] = config.attention_head_dim();
  out["intermediate_size"] = config.ff_dim;
  out["vocab_size"] = config.vocab_size;
  out["max_position_embeddings"] = config.context;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = config.norm_eps;
  const nlohmann::ordered_json rope = rope_json(config.rope);
  // Both spellings, so that older and newer readers agree.
  out["rope_theta"] = config.rope.theta;
  if (config.rope.type != "default") out["rope_scaling"] = rope;
  out["rope_parameters"] = rope;
  out["tie_word_embeddings"] = config.tie_embeddings;
  out["attention_bias"] = config.attention_bias;
  out["mlp_bias"] = config.mlp_bias;
  write_windows(config, family.family, out);
  write_special_tokens(config, out);
  out["torch_dtype"] = out["dtype"] = config.dtype == DenseType::kFloat32 ? "float32" : "bfloat16";
  if (config.weights) {
    out[kQuantization] = {{"quant_method", kOurs},
                          {"weights", text_of(*config.weights, kRowTypes)}};
  }
  if (is_ours && family.family != ModelFamily::kLlama) out[kOurs][kBase] = family.model_type;
  if (config.experts > 1) out[kOurs][kExperts] = config.experts;
  if (config.memory) {
    const MemoryConfig& memory = *config.memory;
    out["memlayers"]["memory"] = {{"layers", config.memory_layers()},
                                  {"n_keys", memory.n_keys},
                                  {"heads", memory.heads},
                                  {"knn", memory.knn},
                                  {"k_dim", memory.k_dim},
                                  {"v_dim", config.value_dim()},
                                  {"variant", text_of(memory.variant, kVariants)},
                                  {"placement", text_of(memory.placement, kPlacements)},
                                  {"value_proj", memory.has_value_proj(config.dim)},
                                  {"qk_norm", memory.qk_norm},
                                  {"gate", memory.gate},
                                  {"row_dtype", text_of(memory.row_dtype, kRowTypes)}};
    OrderedJson& fields = out["memlayers"]["memory"];
    if (memory.gate_dim) fields["gate_dim"] = *memory.gate_dim;
    if (!memory.output_scales.empty()) fields["output_scales"] = memory.output_scales;
    if (memory.open_keys) fields["open_keys"] = *memory.open_keys;
    if (memory.frozen_keys) fields["frozen_keys"] = true;
  }
  return out.dump(2) + "\n";
}

}  // namespace memlayers::io

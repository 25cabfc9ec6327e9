// SPDX-License-Identifier: Apache-2.0
#include "io/model_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "io/json_object.h"
#include "io/model_config_names.h"
#include "io/model_family.h"
#include "io/model_rope.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using nlohmann::json;
using Fields = JsonObject;

template <class Enum, std::size_t N>
Enum parse(const Fields& fields, const char* name, const Name<Enum> (&names)[N]) {
  const std::string text = fields.string(name);
  std::string wanted;
  for (const auto& candidate : names) {
    if (text == candidate.text) return candidate.value;
    wanted += (wanted.empty() ? "\"" : " or \"") + std::string(candidate.text) + "\"";
  }
  fields.fail(name, wanted);
}

MemoryConfig read_memory(const Fields& fields) {
  fields.expect_only({"layers", "n_keys", "heads", "knn", "k_dim", "v_dim", "variant", "placement",
                      "value_proj", "qk_norm", "gate", "gate_dim", "output_scales", "row_dtype",
                      "open_keys", "frozen_keys"});
  MemoryConfig memory;
  memory.layers = fields.integers("layers");
  memory.n_keys = fields.integer("n_keys");
  memory.heads = fields.integer("heads");
  memory.knn = fields.integer("knn");
  memory.k_dim = fields.integer("k_dim");
  memory.v_dim = fields.integer("v_dim");
  memory.variant = parse(fields, "variant", kVariants);
  memory.placement = parse(fields, "placement", kPlacements);
  memory.value_proj = fields.boolean("value_proj");
  memory.qk_norm = fields.boolean("qk_norm");
  memory.gate = fields.boolean("gate");
  memory.row_dtype = parse(fields, "row_dtype", kRowTypes);
  if (fields.has("gate_dim")) memory.gate_dim = fields.integer("gate_dim");
  if (fields.has("output_scales")) memory.output_scales = fields.numbers("output_scales");
  if (fields.has("open_keys")) memory.open_keys = fields.integer("open_keys");
  if (fields.has("frozen_keys")) memory.frozen_keys = fields.boolean("frozen_keys");
  return memory;
}

// Fields of other decoders: where they say something, they change what is computed.
void refuse_what_is_not_done(const Fields& fields, ModelFamily family) {
  fields.expect_neutral("partial_rotary_factor", {1});
  for (const char* name : {"attn_logit_softcapping", "final_logit_softcapping",
                           "attention_multiplier", "attention_chunk_size", "clip_qkv"}) {
    fields.expect_neutral(name, {});
  }
  for (const char* name :
       {"embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale"}) {
    fields.expect_neutral(name, {1});
  }
  for (const char* name : {"num_experts", "num_local_experts"}) fields.expect_neutral(name, {0, 1});
  for (const char* name : {"is_encoder_decoder", "add_cross_attention", "use_qk_norm", "alibi",
                           "parallel_attn", "use_parallel_residual"}) {
    fields.expect_neutral(name, {false});
  }
  const bool has_mlp_bias = family == ModelFamily::kLlama || family == ModelFamily::kSmolLm3;
  if (!has_mlp_bias) fields.expect_neutral("mlp_bias", {false});
  // Qwen2 has biases, whatever is said.
  if (family == ModelFamily::kMistral) fields.expect_neutral("attention_bias", {false});
  if (family == ModelFamily::kQwen2) fields.expect_neutral("attention_bias", {true});
}

// The layers of "layer_types" that see a window only.
std::vector<std::int64_t> read_layer_types(const Fields& fields, std::int64_t layers) {
  const std::vector<std::string> types = fields.strings("layer_types");
  if (static_cast<std::int64_t>(types.size()) != layers) {
    fields.fail("layer_types", std::to_string(layers) + " strings, as many as layers");
  }
  std::vector<std::int64_t> sliding;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::string& type = types[static_cast<std::size_t>(layer)];
    if (type == "sliding_attention") sliding.push_back(layer);
    if (type != "sliding_attention" && type != "full_attention") {
      fields.fail("layer_types", "\"full_attention\" and \"sliding_attention\" alone");
    }
  }
  return sliding;
}

// Of the families in which any layer may slide: by layer_types, or else the layers `otherwise`.
void read_windows(const Fields& fields, std::optional<std::int64_t> absent,
                  std::vector<std::int64_t> otherwise, ModelConfig& config) {
  std::optional<std::int64_t> window;
  if (fields.boolean("use_sliding_window", false)) {
    window = fields.is_given("sliding_window") ? std::nullopt : absent;
    if (fields.has("sliding_window")) window = fields.integer("sliding_window");
  }
  const bool has_types = fields.has("layer_types");
  if (has_types) otherwise = read_layer_types(fields, config.layers);
  if (has_types && !otherwise.empty() && !window) {
    fields.fail("layer_types", "\"full_attention\" alone without a sliding window");
  }
  if (!window || otherwise.empty()) return;
  config.sliding_window = window;
  config.sliding_layers = std::move(otherwise);
}

std::vector<std::int64_t> layers_from(std::int64_t first, std::int64_t layers) {
  std::vector<std::int64_t> list;
  for (std::int64_t layer = std::max<std::int64_t>(0, first); layer < layers; ++layer) {
    list.push_back(layer);
  }
  return list;
}

std::vector<std::int64_t> read_unrotated(const Fields& fields, std::int64_t layers) {
  std::vector<std::int64_t> list;
  if (fields.has("no_rope_layers")) {  // 1: with RoPE
    const std::vector<std::int64_t> has_rope = fields.integers("no_rope_layers");
    if (static_cast<std::int64_t>(has_rope.size()) < layers) {
      fields.fail("no_rope_layers", "a number a layer, " + std::to_string(layers));
    }
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      if (has_rope[static_cast<std::size_t>(layer)] == 0) list.push_back(layer);
    }
    return list;
  }
  const std::int64_t interval = fields.integer("no_rope_layer_interval", 4);
  if (interval < 1) fields.fail("no_rope_layer_interval", "a number of at least 1");
  for (std::int64_t layer = interval - 1; layer < layers; layer += interval) list.push_back(layer);
  return list;
}

void read_attention(const Fields& fields, ModelFamily family, ModelConfig& config) {
  config.attention_bias = fields.has("attention_bias") && fields.boolean("attention_bias");
  config.mlp_bias = fields.has("mlp_bias") && fields.boolean("mlp_bias");
  // Not more is made of an impossible number of layers, which validate() refuses.
  const std::int64_t layers = std::min(config.layers, ModelConfig::kMostLayers);
  const std::int64_t qwen_window = 4096, qwen_first = 28;
  switch (family) {
    case ModelFamily::kLlama:
      fields.expect_neutral("sliding_window", {});
      fields.expect_neutral("use_sliding_window", {false});
      if (!fields.has("layer_types")) return;
      if (!read_layer_types(fields, config.layers).empty()) {
        fields.fail("layer_types", "\"full_attention\" alone");
      }
      return;
    case ModelFamily::kMistral:
      if (fields.has("sliding_window")) config.sliding_window = fields.integer("sliding_window");
      if (!fields.is_given("sliding_window")) config.sliding_window = 4096;
      fields.expect_neutral("layer_types", {});
      return;
    case ModelFamily::kQwen3:
      config.attention_norm = true;
      break;
    case ModelFamily::kQwen2:
      config.attention_bias = true;
      config.attention_output_bias = false;
      break;
    case ModelFamily::kSmolLm3:
      config.unrotated_layers = read_unrotated(fields, layers);
      read_windows(fields, std::nullopt, config.unrotated_layers, config);
      return;
  }
  read_windows(fields, qwen_window,
               layers_from(fields.integer("max_window_layers", qwen_first), layers), config);
}

void read_sizes(const Fields& fields, const FamilyDefaults& defaults, bool is_ours,
                ModelConfig& config) {
  // We write all of them.
  const auto size = [&](const char* name, std::int64_t absent) {
    return is_ours ? fields.integer(name) : fields.integer(name, absent);
  };
  config.dim = size("hidden_size", defaults.hidden_size);
  config.layers = size("num_hidden_layers", defaults.num_hidden_layers);
  config.heads = size("num_attention_heads", defaults.num_attention_heads);
  config.ff_dim = size("intermediate_size", defaults.intermediate_size);
  config.vocab_size = size("vocab_size", defaults.vocab_size);
  config.context = fields.integer("max_position_embeddings", defaults.max_position_embeddings);
  const auto optional = [&](const char* name, std::optional<std::int64_t> absent) {
    if (!fields.is_given(name)) return absent;
    return fields.has(name) ? std::optional(fields.integer(name)) : std::nullopt;
  };
  config.kv_heads = optional("num_key_value_heads", defaults.num_key_value_heads);
  config.head_dim = optional("head_dim", defaults.head_dim);
}

std::vector<std::int64_t> read_tokens(const Fields& fields, const char* name,
                                      std::int64_t vocab_size) {
  if (!fields.has(name)) return {};
  std::vector<std::int64_t> tokens = fields.integers(name);
  for (const std::int64_t token : tokens) {
    if (token < 0 || token >= vocab_size) {
      fields.fail(name, "tokens from 0 to " + std::to_string(vocab_size - 1));
    }
  }
  return tokens;
}

// None of a generation's own settings has a default in transformers, nor here: what is absent is
// none, whatever the configuration class says.
void read_special_tokens(const Fields& fields, ModelConfig& config) {
  const auto one = [&](const char* name) -> std::optional<std::int64_t> {
    if (!fields.has(name)) return std::nullopt;
    static_cast<void>(fields.integer(name));  // not a list
    return read_tokens(fields, name, config.vocab_size).front();
  };
  config.bos_token = one("bos_token_id");
  config.eos_tokens = read_tokens(fields, "eos_token_id", config.vocab_size);
  // The first LLaMA's folders say -1 where there is none.
  const bool has_no_pad = fields.has("pad_token_id") && fields.integer("pad_token_id") == -1;
  if (!has_no_pad) config.pad_token = one("pad_token_id");
}

DenseType read_dtype(const Fields& fields) {
  DenseType type = DenseType::kFloat32;
  for (const char* name : {"torch_dtype", "dtype"}) {
    if (!fields.has(name)) continue;
    const std::string dtype = fields.string(name);
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      fields.fail(name, "\"float32\", \"bfloat16\" or \"float16\"");
    }
    // float16 weights are computed with in float32: no range is lost.
    type = dtype == "bfloat16" ? DenseType::kBFloat16 : DenseType::kFloat32;
  }
  return type;
}

ModelFamily read_family(const Fields& fields) {
  std::string type = fields.has("model_type") ? fields.string("model_type") : "llama";
  std::string wanted;
  for (const FamilyDefaults& defaults : families()) {
    if (type == defaults.model_type) return defaults.family;
    wanted += "\"" + std::string(defaults.model_type) + "\", ";
  }
  wanted.resize(wanted.size() - 2);
  if (type != kOurs) fields.fail("model_type", wanted + " or \"memlayers\"");
  // The decoder that has the memory.
  if (!fields.has(kOurs) || !fields.object(kOurs).has(kBase)) return ModelFamily::kLlama;
  type = fields.object(kOurs).string(kBase);
  for (const FamilyDefaults& defaults : families()) {
    if (type == defaults.model_type) return defaults.family;
  }
  fields.object(kOurs).fail(kBase, wanted);
}

// "quantization_config": other tools' ways of storing weights are none of ours.
std::optional<RowType> read_weights(const Fields& fields) {
  if (!fields.has(kQuantization)) return std::nullopt;
  const Fields of_weights = fields.object(kQuantization);
  if (!of_weights.has("quant_method") || of_weights.string("quant_method") != kOurs) {
    of_weights.fail("quant_method", "\"memlayers\"");
  }
  const RowType type = parse(of_weights, "weights", kRowTypes);
  if (!is_quantized(type)) of_weights.fail("weights", "\"int8\" or \"int4\"");
  return type;
}

}  // namespace

ModelConfig read_model_config(FileSystem& fs, const std::string& path) {
  const json parsed = parse_json(read_text(fs, path), path);
  const Fields fields(parsed, path);
  ModelConfig config;
  const ModelFamily family = read_family(fields);
  const FamilyDefaults& defaults = defaults_of(family);
  if (fields.has("hidden_act") && fields.string("hidden_act") != "silu" &&
      fields.string("hidden_act") != "swish") {
    fields.fail("hidden_act", "\"silu\"");
  }
  refuse_what_is_not_done(fields, family);
  const bool is_ours = fields.has("model_type") && fields.string("model_type") == kOurs;
  read_sizes(fields, defaults, is_ours, config);
  read_attention(fields, family, config);
  config.rope = read_rope(fields, defaults, config.context);
  config.norm_eps = fields.number("rms_norm_eps", defaults.rms_norm_eps);
  config.tie_embeddings = fields.boolean("tie_word_embeddings", defaults.tie_word_embeddings);
  read_special_tokens(fields, config);
  config.dtype = read_dtype(fields);
  config.weights = read_weights(fields);
  if (fields.has(kOurs)) {
    const Fields ours = fields.object(kOurs);
    if (ours.has("memory")) config.memory = read_memory(ours.object("memory"));
    if (ours.has(kExperts)) config.experts = ours.integer(kExperts);
  }
  try {
    config.validate();
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  }
  return config;
}

void read_generation_config(FileSystem& fs, const std::string& path, ModelConfig& config) {
  const json parsed = parse_json(read_text(fs, path), path);
  const Fields fields(parsed, path);
  // They choose, forbid or force tokens, or decide where a text ends.
  for (const char* name : {"forced_bos_token_id", "forced_eos_token_id", "force_words_ids",
                           "constraints", "sequence_bias", "exponential_decay_length_penalty",
                           "watermarking_config", "penalty_alpha", "dola_layers"}) {
    fields.expect_neutral(name, {});
  }
  for (const char* name :
       {"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "stop_strings"}) {
    fields.expect_neutral(name, {json::array()});
  }
  for (const char* name :
       {"min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"}) {
    fields.expect_neutral(name, {0});
  }
  for (const char* name : {"guidance_scale", "encoder_repetition_penalty"}) {
    fields.expect_neutral(name, {1});
  }
  fields.expect_neutral("token_healing", {false});
  config.eos_tokens = read_tokens(fields, "eos_token_id", config.vocab_size);
}

}  // namespace memlayers::io

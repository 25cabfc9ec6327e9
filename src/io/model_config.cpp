// SPDX-License-Identifier: Apache-2.0
#include "io/model_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/nearest.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using nlohmann::json;

bool is_integer(const json& value) {  // that an int64_t holds
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<std::uint64_t>() <= kMax);
}

// Typed access to the fields of one JSON object; every complaint names the file and the field.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw Error(where_ + ": expected an object, got " + brief(object));
  }
  bool has(const char* name) const { return object_.contains(name) && !object_[name].is_null(); }
  std::int64_t integer(const char* name) const {
    const json& value = at(name);
    if (!is_integer(value)) fail(name, "an integer");
    return value.get<std::int64_t>();
  }
  double number(const char* name) const {
    const json& value = at(name);
    if (!value.is_number() || !std::isfinite(value.get<double>())) fail(name, "a number");
    return value.get<double>();
  }
  bool boolean(const char* name) const {
    const json& value = at(name);
    if (!value.is_boolean()) fail(name, "true or false");
    return value.get<bool>();
  }
  std::string string(const char* name) const {
    const json& value = at(name);
    if (!value.is_string()) fail(name, "a string");
    return value.get<std::string>();
  }
  std::vector<std::int64_t> integers(const char* name) const {  // a number is a list of one
    const json& value = at(name);
    if (is_integer(value)) return {value.get<std::int64_t>()};
    if (!value.is_array()) fail(name, "an integer or a list of them");
    std::vector<std::int64_t> list;
    for (const json& item : value) {
      if (!is_integer(item)) fail(name, "an integer or a list of them");
      list.push_back(item.get<std::int64_t>());
    }
    return list;
  }
  Fields object(const char* name) const { return {at(name), where_ + ": " + name}; }
  // A newer writer's field may change what is computed, so an unknown one is no trifle.
  void expect_only(const std::vector<std::string>& known) const {
    for (const auto& [name, value] : object_.items()) {
      if (std::find(known.begin(), known.end(), name) == known.end()) {
        throw Error(where_ + ": unknown field \"" + name + "\"; did you mean \"" +
                    nearest(name, known) + "\"?");
      }
    }
  }
  void expect_no_objects() const {
    for (const auto& [name, value] : object_.items()) {
      if (value.is_object()) fail(name.c_str(), "a number or string");
    }
  }
  [[noreturn]] void fail(const char* name, const std::string& wanted) const {
    throw Error(where_ + ": " + name + ": expected " + wanted + ", got " + brief(object_[name]));
  }

 private:
  const json& at(const char* name) const {
    if (!has(name)) throw Error(where_ + ": expected a field \"" + name + "\", found none");
    return object_[name];
  }
  const json& object_;
  std::string where_;
};

template <class Enum>
struct Name {
  Enum value;
  const char* text;
};
constexpr Name<RowType> kRowTypes[] = {{RowType::kFloat32, "float32"},
                                       {RowType::kBFloat16, "bfloat16"},
                                       {RowType::kInt8, "int8"},
                                       {RowType::kInt4, "int4"}};
constexpr Name<MemoryVariant> kVariants[] = {{MemoryVariant::kPlain, "plain"},
                                             {MemoryVariant::kMemoryPlus, "memory+"},
                                             {MemoryVariant::kPeer, "peer"}};
constexpr Name<MemoryPlacement> kPlacements[] = {{MemoryPlacement::kReplace, "replace"},
                                                 {MemoryPlacement::kBeside, "beside"}};

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

template <class Enum, std::size_t N>
const char* text_of(Enum value, const Name<Enum> (&names)[N]) {
  for (const auto& candidate : names) {
    if (value == candidate.value) return candidate.text;
  }
  return names[0].text;
}

RopeConfig read_rope(const Fields& fields) {
  RopeConfig rope;
  if (fields.has("rope_theta")) rope.theta = fields.number("rope_theta");
  const char* name = fields.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (fields.has(name)) {
    const Fields scaling = fields.object(name);
    scaling.expect_no_objects();  // one RoPE a kind of layer: not a LLaMA
    if (scaling.has("rope_theta")) rope.theta = scaling.number("rope_theta");
    const char* type = scaling.has("rope_type") ? "rope_type" : "type";
    if (scaling.has(type)) rope.type = scaling.string(type);
    if (rope.type == "linear" || rope.type == "llama3") rope.factor = scaling.number("factor");
    if (rope.type == "llama3") {
      rope.low_freq_factor = scaling.number("low_freq_factor");
      rope.high_freq_factor = scaling.number("high_freq_factor");
      rope.original_context = scaling.integer("original_max_position_embeddings");
    } else if (rope.type != "default" && rope.type != "linear") {
      scaling.fail(type, "\"default\", \"linear\" or \"llama3\"");
    }
  }
  return rope;
}

MemoryConfig read_memory(const Fields& fields) {
  fields.expect_only({"layers", "n_keys", "heads", "knn", "k_dim", "v_dim", "variant", "placement",
                      "value_proj", "qk_norm", "gate", "row_dtype", "open_keys"});
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
  if (fields.has("open_keys")) memory.open_keys = fields.integer("open_keys");
  return memory;
}

}  // namespace

ModelConfig read_model_config(FileSystem& fs, const std::string& path) {
  const json parsed = parse_json(read_text(fs, path), path);
  const Fields fields(parsed, path);
  if (fields.has("model_type")) {
    const std::string type = fields.string("model_type");
    if (type != "llama" && type != "memlayers" && type != "mistral") {
      fields.fail("model_type", "\"llama\", \"mistral\" or \"memlayers\"");
    }
  }
  if (fields.has("hidden_act") && fields.string("hidden_act") != "silu")
    fields.fail("hidden_act", "\"silu\"");
  if (fields.has("sliding_window")) fields.fail("sliding_window", "null");
  ModelConfig config;
  config.dim = fields.integer("hidden_size");
  config.layers = fields.integer("num_hidden_layers");
  config.heads = fields.integer("num_attention_heads");
  if (fields.has("num_key_value_heads")) config.kv_heads = fields.integer("num_key_value_heads");
  if (fields.has("head_dim")) config.head_dim = fields.integer("head_dim");
  config.ff_dim = fields.integer("intermediate_size");
  config.vocab_size = fields.integer("vocab_size");
  if (fields.has("max_position_embeddings"))
    config.context = fields.integer("max_position_embeddings");
  config.rope = read_rope(fields);
  if (fields.has("rms_norm_eps")) config.norm_eps = fields.number("rms_norm_eps");
  config.tie_embeddings =
      fields.has("tie_word_embeddings") && fields.boolean("tie_word_embeddings");
  config.attention_bias = fields.has("attention_bias") && fields.boolean("attention_bias");
  config.mlp_bias = fields.has("mlp_bias") && fields.boolean("mlp_bias");
  if (fields.has("bos_token_id")) config.bos_token = fields.integer("bos_token_id");
  if (fields.has("eos_token_id")) config.eos_tokens = fields.integers("eos_token_id");
  // The first LLaMA's folders say -1 where there is none.
  if (fields.has("pad_token_id") && fields.integer("pad_token_id") != -1) {
    config.pad_token = fields.integer("pad_token_id");
  }
  const auto check_token = [&](const char* name, std::int64_t token) {
    if (token < 0 || token >= config.vocab_size) {
      fields.fail(name, "tokens from 0 to " + std::to_string(config.vocab_size - 1));
    }
  };
  if (config.bos_token) check_token("bos_token_id", *config.bos_token);
  for (const std::int64_t token : config.eos_tokens) check_token("eos_token_id", token);
  if (config.pad_token) check_token("pad_token_id", *config.pad_token);
  for (const char* name : {"torch_dtype", "dtype"}) {
    if (!fields.has(name)) continue;
    const std::string dtype = fields.string(name);
    if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16") {
      fields.fail(name, "\"float32\", \"bfloat16\" or \"float16\"");
    }
    // float16 weights are computed with in float32: no range is lost.
    config.dtype = dtype == "bfloat16" ? DenseType::kBFloat16 : DenseType::kFloat32;
  }
  if (fields.has("memlayers") && fields.object("memlayers").has("memory")) {
    config.memory = read_memory(fields.object("memlayers").object("memory"));
  }
  try {
    config.validate();
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  }
  return config;
}

std::string model_config_json(const ModelConfig& config) {
  nlohmann::ordered_json out;
  // A decoder without memory layers is a LLaMA for every other tool too.
  const bool has_memory = !config.memory_layers().empty();
  out["architectures"] = {has_memory ? "MemlayersForCausalLM" : "LlamaForCausalLM"};
  out["model_type"] = has_memory ? "memlayers" : "llama";
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
  nlohmann::ordered_json rope = {{"rope_type", config.rope.type},
                                 {"rope_theta", config.rope.theta}};
  if (config.rope.type != "default") rope["factor"] = config.rope.factor;
  if (config.rope.type == "llama3") {
    rope["low_freq_factor"] = config.rope.low_freq_factor;
    rope["high_freq_factor"] = config.rope.high_freq_factor;
    rope["original_max_position_embeddings"] = config.rope.original_context;
  }
  // Both spellings, so that older and newer readers agree.
  out["rope_theta"] = config.rope.theta;
  if (config.rope.type != "default") out["rope_scaling"] = rope;
  out["rope_parameters"] = rope;
  out["tie_word_embeddings"] = config.tie_embeddings;
  out["attention_bias"] = config.attention_bias;
  out["mlp_bias"] = config.mlp_bias;
  if (config.bos_token) out["bos_token_id"] = *config.bos_token;
  if (config.eos_tokens.size() == 1) out["eos_token_id"] = config.eos_tokens[0];
  if (config.eos_tokens.size() > 1) out["eos_token_id"] = config.eos_tokens;
  if (config.pad_token) out["pad_token_id"] = *config.pad_token;
  out["torch_dtype"] = out["dtype"] = config.dtype == DenseType::kFloat32 ? "float32" : "bfloat16";
  if (config.memory) {
    const MemoryConfig& memory = *config.memory;
    const bool is_plus = memory.variant == MemoryVariant::kMemoryPlus;
    out["memlayers"]["memory"] = {
        {"layers", config.memory_layers()},
        {"n_keys", memory.n_keys},
        {"heads", memory.heads},
        {"knn", memory.knn},
        {"k_dim", memory.k_dim},
        {"v_dim", config.value_dim()},
        {"variant", text_of(memory.variant, kVariants)},
        {"placement", text_of(memory.placement, kPlacements)},
        {"value_proj", memory.value_proj.value_or(is_plus || config.value_dim() != config.dim)},
        {"qk_norm", memory.qk_norm},
        {"gate", memory.gate},
        {"row_dtype", text_of(memory.row_dtype, kRowTypes)}};
    if (memory.open_keys) out["memlayers"]["memory"]["open_keys"] = *memory.open_keys;
  }
  return out.dump(2) + "\n";
}

}  // namespace memlayers::io

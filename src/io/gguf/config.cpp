// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "io/gguf/rope_factors.h"
#include "io/gguf/vocabulary.h"
#include "io/mapped_read.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

constexpr std::array<Architecture, 3> kArchitectures{
    {{"llama", true}, {"qwen2", false}, {"qwen3", false}}};
constexpr std::int64_t kMostSize = std::int64_t{1} << 31;

// Keys "<architecture>.<name>".
class Keys {
 public:
  Keys(const Metadata& metadata, std::string prefix)
      : metadata_(metadata), prefix_(std::move(prefix) + ".") {}
  std::optional<Field> find(const std::string& name) const {
    return metadata_.find(prefix_ + name);
  }
  std::int64_t size(const std::string& name) const {
    return metadata_.at(prefix_ + name).same_integer(1, kMostSize);
  }
  std::int64_t size(const std::string& name, std::int64_t absent) const {
    const auto field = find(name);
    return field ? field->same_integer(1, kMostSize) : absent;
  }
  double number(const std::string& name) const { return metadata_.at(prefix_ + name).number(); }
  double number(const std::string& name, double absent) const {
    const auto field = find(name);
    return field ? field->number() : absent;
  }

 private:
  const Metadata& metadata_;
  std::string prefix_;
};

// Of other decoders: where they say something, they change what is computed.
void refuse_what_is_not_done(const Keys& keys) {
  for (const char* name : {"expert_count", "expert_used_count", "nextn_predict_layers",
                           "attention.shared_kv_layers"}) {
    if (const auto field = keys.find(name); field && field->same_integer(INT64_MIN, INT64_MAX) != 0)
      field->fail("0");
  }
  for (const char* name :
       {"logit_scale", "residual_scale", "embedding_scale", "attention.output_scale"}) {
    const double scale = keys.number(name, 1);
    if (scale != 0 && scale != 1) keys.find(name)->fail("1");
  }
  for (const char* name :
       {"attn_logit_softcapping", "final_logit_softcapping", "attention.clamp_kqv",
        "attention.max_alibi_bias", "attention.temperature_scale"}) {
    if (keys.number(name, 0) != 0) keys.find(name)->fail("0");
  }
  for (const char* name : {"rope.dimension_sections", "rope.freq_base_swa", "rope.scaling.alpha",
                           "attention.sliding_window_pattern", "attention.key_length_swa"}) {
    if (const auto field = keys.find(name)) field->fail("no such key");
  }
  if (const auto causal = keys.find("attention.causal"); causal && !causal->boolean()) {
    causal->fail("true");
  }
  if (const auto parallel = keys.find("use_parallel_residual"); parallel && parallel->boolean()) {
    parallel->fail("false");
  }
}

void read_sizes(const Keys& keys, ModelConfig& config) {
  config.dim = keys.size("embedding_length");
  config.layers = keys.size("block_count");
  config.ff_dim = keys.size("feed_forward_length");
  config.context = keys.size("context_length");
  config.heads = keys.size("attention.head_count");
  config.kv_heads = keys.size("attention.head_count_kv", config.heads);
  const std::int64_t whole = std::max<std::int64_t>(1, config.dim / config.heads);
  const std::int64_t width = keys.size("attention.key_length", whole);
  if (keys.find("attention.key_length") || config.dim % config.heads == 0) config.head_dim = width;
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    const auto field = keys.find(name);
    if (field && keys.size(name, width) != width) {
      field->fail(std::to_string(width) + ", as many as a head's keys have");
    }
  }
  const auto scale = keys.find("attention.scale");
  const double usual = 1 / std::sqrt(static_cast<double>(width));
  if (scale && std::abs(scale->number() - usual) > 1e-6 * usual) {
    scale->fail("1 / sqrt(" + std::to_string(width) + ")");
  }
  config.norm_eps = keys.number("attention.layer_norm_rms_epsilon");
}

void read_yarn(const Keys& keys, RopeConfig& rope) {
  rope.beta_fast = keys.number("rope.scaling.yarn_beta_fast", rope.beta_fast);
  rope.beta_slow = keys.number("rope.scaling.yarn_beta_slow", rope.beta_slow);
  const double share = keys.number("rope.scaling.yarn_ext_factor", 1);
  if (share != 1 && share != -1) keys.find("rope.scaling.yarn_ext_factor")->fail("1");
  if (keys.number("rope.scaling.yarn_log_multiplier", 0) != 0) {
    keys.find("rope.scaling.yarn_log_multiplier")->fail("0");
  }
  // llama.cpp multiplies by it what follows from the factor.
  rope.attention_factor = keys.number("rope.scaling.yarn_attn_factor", 1) *
                          keys.number("rope.scaling.attn_factor", 1) *
                          (rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1);
}

RopeConfig read_rope(const Keys& keys, std::int64_t context) {
  RopeConfig rope;
  rope.theta = keys.number("rope.freq_base", 10000);
  rope.original_context = context;
  const auto named = keys.find("rope.scaling.type");
  const double old_factor = keys.number("rope.scale_linear", 1);
  const std::string type = named ? named->string() : old_factor == 1 ? "none" : "linear";
  if (type == "none") return rope;
  if (named && type != "linear" && type != "yarn") {
    named->fail("\"none\", \"linear\" or \"yarn\"");
  }
  rope.factor = keys.number("rope.scaling.factor", old_factor);
  rope.original_context = keys.size("rope.scaling.original_context_length", context);
  // llama.cpp takes a factor of 0 for none.
  if (rope.factor == 0 || (type == "linear" && rope.factor == 1)) return rope;
  rope.type = type;
  if (type == "yarn") read_yarn(keys, rope);
  return rope;
}

void read_factors(const File& file, const ModelConfig& config, RopeConfig& rope) {
  const auto found = file.tensors().find("rope_freqs.weight");
  if (found == file.tensors().end()) return;
  const Tensor& tensor = found->second;
  const std::string where = file.path() + ": tensor \"rope_freqs.weight\"";
  const std::int64_t count = config.attention_head_dim() / 2;
  if (tensor.type->id != kTypeF32 || tensor.shape != std::vector<std::int64_t>{count}) {
    throw Error(where + ": expected " + std::to_string(count) +
                " numbers of type F32, half of what a head has, got " +
                std::to_string(numbers_in(tensor.shape)) + " of type " +
                std::string(tensor.type->name));
  }
  if (rope.type != "default") {
    throw Error(where + ": expected none beside rope.scaling.type \"" + rope.type + "\"");
  }
  std::vector<float> factors(static_cast<std::size_t>(count));
  copy_mapped(factors.data(), tensor.bytes);
  read_rope_factors(factors, where, rope);
}

void read_attention(const File& file, const std::string& family, const Keys& keys,
                    ModelConfig& config) {
  const auto has = [&](const char* name) { return file.tensors().contains(name); };
  config.attention_bias = has("blk.0.attn_q.bias");
  if (has("blk.0.attn_output.bias") != config.attention_bias) {
    config.attention_output_bias = has("blk.0.attn_output.bias");
  }
  config.mlp_bias = has("blk.0.ffn_down.bias");
  config.attention_norm = family == "qwen3";
  config.tie_embeddings = !has("output.weight");
  // Qwen's files do not say whether their window is used, and no reader of GGUF does.
  if (family != "llama") return;
  if (const auto window = keys.find("attention.sliding_window")) {
    const std::int64_t size = window->integer(0, kMostSize);
    if (size > 0) config.sliding_window = size;
  }
}

std::int64_t usual_vocab_size(const File& file, const SpecialTokens& special) {
  if (special.vocab_size > 0) return special.vocab_size;
  const auto embedding = file.tensors().find("token_embd.weight");
  return embedding == file.tensors().end() ? 1 : embedding->second.shape.front();
}

// As the weights are stored, where that is one of the two types that a model may have.
DenseType read_dtype(const File& file) {
  bool is_bfloat16 = false;
  for (const auto& [name, tensor] : file.tensors()) {
    if (tensor.shape.size() < 2) continue;  // norms are float32 in all files
    if (tensor.type->id != kTypeBF16) return DenseType::kFloat32;
    is_bfloat16 = true;
  }
  return is_bfloat16 ? DenseType::kBFloat16 : DenseType::kFloat32;
}

}  // namespace

const Architecture& read_architecture(const File& file) {
  const Metadata& metadata = file.metadata();
  if (const auto type = metadata.find("general.type"); type && type->string() != "model") {
    type->fail("\"model\"");
  }
  const Field field = metadata.at("general.architecture");
  const std::string name = field.string();
  std::string known;
  for (const Architecture& architecture : kArchitectures) {
    if (name == architecture.name) return architecture;
    known += (known.empty() ? "\"" : ", \"") + std::string(architecture.name) + "\"";
  }
  field.fail("one of " + known);
}

const Architecture& architecture_of(const ModelConfig& config, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw Error(where + ": expected a model that GGUF has an architecture for, got one with " +
                what);
  };
  if (!config.memory_layers().empty()) refuse("memory layers");
  if (config.experts > 1) refuse("experts");
  if (!config.unrotated_layers.empty()) refuse("layers without RoPE");
  if (config.sliding_layers) refuse("a sliding window in some layers");
  if (config.rope.type == "dynamic") refuse("RoPE of type \"dynamic\"");
  if (config.rope.type == "yarn" && !config.rope.truncate) refuse("YaRN without truncation");
  const bool is_qwen2 = config.has_attention_output_bias() != config.attention_bias;
  if (config.attention_norm) {
    if (config.attention_bias) refuse("norms of queries and keys, and biases");
    if (config.sliding_window) refuse("norms of queries and keys, and a sliding window");
    return kArchitectures[2];
  }
  if (is_qwen2 && config.sliding_window) refuse("biases of queries, and a sliding window");
  return kArchitectures[is_qwen2 ? 1 : 0];
}

ModelConfig read_config(const File& file) {
  const std::string family = read_architecture(file).name;
  const Keys keys(file.metadata(), family);
  refuse_what_is_not_done(keys);
  ModelConfig config;
  read_sizes(keys, config);
  read_attention(file, family, keys, config);
  config.rope = read_rope(keys, config.context);
  config.dtype = read_dtype(file);
  const SpecialTokens special = read_special_tokens(file.metadata());
  config.vocab_size = keys.size("vocab_size", usual_vocab_size(file, special));
  config.bos_token = special.bos;
  config.pad_token = special.pad;
  config.eos_tokens = special.ends();
  const auto block_count = file.metadata().at(family + ".block_count");
  if (config.layers > static_cast<std::int64_t>(file.tensors().size())) {
    block_count.fail("at most " + std::to_string(file.tensors().size()) +
                     ", as many as the file has tensors");
  }
  try {
    config.validate();
    read_factors(file, config, config.rope);
  } catch (const Error& error) {
    if (std::string(error.what()).starts_with(file.path())) throw;
    throw Error(file.path() + ": " + error.what());
  }
  return config;
}

}  // namespace memlayers::io::gguf

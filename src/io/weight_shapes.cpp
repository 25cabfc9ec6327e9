// SPDX-License-Identifier: Apache-2.0
#include "io/weight_shapes.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using Extent = WeightShape::Extent;

constexpr std::string_view kLayers = "model.layers.", kExpert = ".mlp.experts.";

class List {
 public:
  explicit List(const ModelConfig& config) : config_(config) {}

  void add(std::string name, std::vector<Extent> extents) {
    list_.push_back({std::move(name), std::move(extents)});
  }
  void add_linear(const std::string& name, const Extent& out, const Extent& in, bool has_bias) {
    add(name + ".weight", {out, in});
    if (has_bias) add(name + ".bias", {out});
  }
  // `memory` is null for a layer without.
  void add_layer(std::int64_t layer, const MemoryConfig* memory) {
    const std::string prefix = std::string(kLayers) + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {dim()});
    add(prefix + "post_attention_layernorm.weight", {dim()});
    add_attention(prefix + "self_attn.");
    if (memory != nullptr) add_memory(prefix + "memory.", *memory);
    if (memory != nullptr && memory->placement == MemoryPlacement::kReplace) return;
    const std::string mlp = prefix + "mlp.";
    if (config_.experts == 1) return add_feed_forward(mlp);
    add(mlp + "gate.weight", {{config_.experts, "memlayers.experts"}, dim()});
    for (std::int64_t i = 0; i < config_.experts; ++i) {
      add_feed_forward(mlp + "experts." + std::to_string(i) + ".");
    }
  }
  Extent dim() const { return {config_.dim, "hidden_size"}; }
  std::vector<WeightShape> take() { return std::move(list_); }

 private:
  void add_attention(const std::string& prefix) {
    const std::int64_t width = config_.attention_head_dim();
    const Extent q{config_.heads * width, "num_attention_heads and head_dim"};
    const Extent kv{config_.num_kv_heads() * width, "num_key_value_heads and head_dim"};
    const bool bias = config_.attention_bias;
    add_linear(prefix + "q_proj", q, dim(), bias);
    add_linear(prefix + "k_proj", kv, dim(), bias);
    add_linear(prefix + "v_proj", kv, dim(), bias);
    add_linear(prefix + "o_proj", dim(), q, config_.has_attention_output_bias());
    if (!config_.attention_norm) return;
    add(prefix + "q_norm.weight", {{width, "head_dim"}});
    add(prefix + "k_norm.weight", {{width, "head_dim"}});
  }

  void add_feed_forward(const std::string& prefix) {
    const Extent ff{config_.ff_dim, "intermediate_size"};
    add_linear(prefix + "gate_proj", ff, dim(), config_.mlp_bias);
    add_linear(prefix + "up_proj", ff, dim(), config_.mlp_bias);
    add_linear(prefix + "down_proj", dim(), ff, config_.mlp_bias);
  }

  void add_memory(const std::string& prefix, const MemoryConfig& memory) {
    const Extent heads{memory.heads, "memory heads"}, k_dim{memory.k_dim, "memory k_dim"};
    const Extent v_dim{config_.value_dim(), "memory v_dim"};
    if (memory.is_ngram()) {
      add(prefix + "query_norm", {dim()});
      add(prefix + "key_norm", {dim()});
      add_linear(prefix + "key_proj", dim(), v_dim, true);
      if (memory.has_value_proj(config_.dim)) add_linear(prefix + "value_proj", dim(), v_dim, true);
      return;
    }
    add(prefix + "keys", {heads,
                          {2, "two sets"},
                          {memory.n_keys, "memory n_keys"},
                          {memory.k_dim / 2, k_dim.fields}});
    if (memory.qk_norm) {
      add(prefix + "query_norm", {k_dim});
      add(prefix + "key_norm", {k_dim});
    }
    add_linear(prefix + "query_proj", {memory.heads * memory.k_dim, "memory heads and k_dim"},
               dim(), true);
    if (memory.has_swilu()) add_linear(prefix + "swilu_proj", v_dim, dim(), true);
    if (memory.has_value_proj(config_.dim)) {
      add_linear(prefix + "value_proj", dim(), v_dim, true);
    }
    const Extent inner{memory.gate_dim.value_or(config_.dim), "memory gate_dim"};
    if (memory.gate_dim) add_linear(prefix + "gate_hidden", inner, dim(), true);
    if (memory.gate) {
      add_linear(prefix + "gate", {1, "gate"}, memory.gate_dim ? inner : dim(), true);
    }
  }

  const ModelConfig& config_;
  std::vector<WeightShape> list_;
};

// N of "model.layers.N.*".
std::optional<std::int64_t> layer_of(std::string_view name) {
  if (!name.starts_with(kLayers)) return std::nullopt;
  name.remove_prefix(kLayers.size());
  const std::string_view digits = name.substr(0, name.find('.'));
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (error != std::errc() || end != digits.data() + digits.size() || layer < 0)
    return std::nullopt;
  return layer;
}

// A model of many more layers than there are weights would be made before its first missing one is
// found.
void check_layers(const ModelConfig& config,
                  const std::map<std::string, std::vector<std::int64_t>>& found,
                  const std::string& where) {
  std::set<std::int64_t> layers;
  for (const auto& [name, shape] : found) {
    if (const auto layer = layer_of(name)) layers.insert(*layer);
  }
  const auto count = static_cast<std::int64_t>(layers.size());
  if (count == config.layers) return;
  throw Error(where + ": num_hidden_layers of config.json: expected " + std::to_string(count) +
              ", the layers that have tensors \"" + std::string(kLayers) + "N.*\", got " +
              std::to_string(config.layers));
}

// The same of experts.
void check_experts(const ModelConfig& config,
                   const std::map<std::string, std::vector<std::int64_t>>& found,
                   const std::string& where) {
  std::int64_t count = 1;
  for (const auto& [name, shape] : found) {
    const auto at = name.find(kExpert);
    if (!name.starts_with(kLayers) || at == std::string::npos) continue;
    const std::string_view rest = std::string_view(name).substr(at + kExpert.size());
    std::int64_t number = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), number);
    count = std::max(count, std::min(number, ModelConfig::kMostExperts) + 1);
  }
  if (count == config.experts) return;
  throw Error(where + ": memlayers.experts of config.json: expected " + std::to_string(count) +
              ", by the tensors that the file has, got " + std::to_string(config.experts));
}

std::string text_of(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) {
    text += (text.size() == 1 ? "" : ", ") + std::to_string(extent);
  }
  return text + "]";
}

// The fields that decide the extents that differ, or all where the number of extents does.
std::string fields_of(const WeightShape& wanted, const std::vector<std::int64_t>& found) {
  std::vector<std::string> fields;
  for (std::size_t i = 0; i < wanted.extents.size(); ++i) {
    const bool is_right =
        found.size() == wanted.extents.size() && found[i] == wanted.extents[i].size;
    const std::string field = wanted.extents[i].fields;
    if (!is_right && std::ranges::find(fields, field) == fields.end()) fields.push_back(field);
  }
  std::string text;
  for (const std::string& field : fields) text += (text.empty() ? "" : ", ") + field;
  return text;
}

}  // namespace

std::vector<WeightShape> weight_shapes(const ModelConfig& config) {
  List list(config);
  const Extent vocabulary{config.vocab_size, "vocab_size"};
  list.add("model.embed_tokens.weight", {vocabulary, list.dim()});
  const std::vector<std::int64_t> with_memory = config.memory_layers();
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const bool has_memory = config.memory && std::ranges::binary_search(with_memory, layer);
    list.add_layer(layer, has_memory ? &*config.memory : nullptr);
  }
  list.add("model.norm.weight", {list.dim()});
  if (!config.tie_embeddings) list.add("lm_head.weight", {vocabulary, list.dim()});
  return list.take();
}

void check_weight_shapes(const ModelConfig& config,
                         const std::map<std::string, std::vector<std::int64_t>>& found,
                         const std::string& where) {
  check_layers(config, found, where);
  check_experts(config, found, where);
  std::set<std::string> wanted;
  for (const WeightShape& weight : weight_shapes(config)) {
    const std::string tensor = where + ": tensor \"" + weight.name + "\"";
    const auto at = found.find(weight.name);
    if (at == found.end()) throw Error(tensor + ": expected by config.json, not in the file");
    std::vector<std::int64_t> shape;
    for (const Extent& extent : weight.extents) shape.push_back(extent.size);
    if (at->second != shape) {
      throw Error(tensor + ": expected shape " + text_of(shape) + " by " +
                  fields_of(weight, at->second) + " of config.json, got " + text_of(at->second));
    }
    wanted.insert(weight.name);
  }
  for (const auto& [name, shape] : found) {
    if (!wanted.contains(name)) {
      throw Error(where + ": tensor " + quote(name) +
                  ": expected none of this name by config.json");
    }
  }
}

}  // namespace memlayers::io

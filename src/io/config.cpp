// SPDX-License-Identifier: Apache-2.0
#include "memlayers/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "io/number_text.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

// Far above any machine, and such that products of two fit in int64_t.
constexpr std::int64_t kMost = std::int64_t{1} << 31;
constexpr std::int64_t kMostThreads = 4096;

std::string text_of(double value) { return io::number_text(value); }

void check_min(const char* name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw Error(std::string(name) + ": expected at least " + std::to_string(least) + ", got " +
                std::to_string(value));
  }
}

void check_size(const char* name, std::int64_t value, std::int64_t least) {
  check_min(name, value, least);
  if (value > kMost) {
    throw Error(std::string(name) + ": expected at most " + std::to_string(kMost) + ", got " +
                std::to_string(value));
  }
}

void check_positive(const char* name, double value) {
  if (!(value > 0) || !std::isfinite(value)) {
    throw Error(std::string(name) + ": expected a number above 0, got " + text_of(value));
  }
}

void check_range(const char* name, double value, double least, double most) {
  if (!(value >= least && value <= most)) {
    throw Error(std::string(name) + ": expected a number from " + text_of(least) + " to " +
                text_of(most) + ", got " + text_of(value));
  }
}

void check_rope(const RopeConfig& rope) {
  check_positive("[model] rope_theta", rope.theta);
  constexpr std::array kTypes{"default", "linear", "dynamic", "llama3", "yarn"};
  if (std::ranges::find(kTypes, rope.type) == kTypes.end()) {
    throw Error(
        "[model] rope_type: expected \"default\", \"linear\", \"dynamic\", \"llama3\" or \"yarn\", "
        "got " +
        io::quote(rope.type));
  }
  check_positive("[model] rope_factor", rope.factor);
  if (rope.type == "default" || rope.type == "linear") return;
  check_size("[model] rope_original_context", rope.original_context, 1);
  if (rope.type == "yarn") {
    check_positive("[model] rope_theta - 1", rope.theta - 1);
    check_positive("[model] beta_fast", rope.beta_fast);
    check_positive("[model] beta_slow", rope.beta_slow);
    check_positive("[model] attention_factor", rope.attention_factor);
  }
  if (rope.type != "llama3") return;
  check_positive("[model] rope_low_freq_factor", rope.low_freq_factor);
  if (!(rope.high_freq_factor > rope.low_freq_factor) || !std::isfinite(rope.high_freq_factor)) {
    throw Error("[model] rope_high_freq_factor: expected a number above rope_low_freq_factor (" +
                text_of(rope.low_freq_factor) + "), got " + text_of(rope.high_freq_factor));
  }
}

void check_layers(const char* name, const std::vector<std::int64_t>& list, std::int64_t layers) {
  std::int64_t before = -1;
  for (const std::int64_t layer : list) {
    if (layer <= before || layer >= layers) {
      throw Error(std::string(name) + ": expected layers from 0 to " + std::to_string(layers - 1) +
                  ", ascending, got " + std::to_string(layer));
    }
    before = layer;
  }
}

// What no family of decoders has together could not be written so that it is read back.
void check_attention(const ModelConfig& model) {
  if (model.sliding_window) check_size("[model] sliding_window", *model.sliding_window, 1);
  if (model.sliding_layers)
    check_layers("[model] sliding_layers", *model.sliding_layers, model.layers);
  check_layers("[model] unrotated_layers", model.unrotated_layers, model.layers);
  const bool has_own_output = model.has_attention_output_bias() != model.attention_bias;
  if (has_own_output && (!model.attention_bias || model.attention_norm)) {
    throw Error("[model] attention_output_bias: expected what attention_bias is, got another");
  }
  if (!has_own_output && !model.attention_norm) return;
  if (model.mlp_bias || !model.unrotated_layers.empty()) {
    throw Error(std::string("[model] ") + (model.mlp_bias ? "mlp_bias" : "unrotated_layers") +
                ": expected none beside " +
                (has_own_output ? "an attention_output_bias of its own" : "attention_norm"));
  }
}

// There are no keys, and the gate is its own.
void check_ngram(const MemoryConfig& memory) {
  const std::string where = " with variant \"ngram\", got ";
  constexpr std::int64_t kMostPlaces = 7;
  if (memory.knn > kMostPlaces) {
    throw Error("[memory] knn: expected at most " + std::to_string(kMostPlaces) +
                ", n-grams of 2 to " + std::to_string(kMostPlaces + 1) + " tokens," + where +
                std::to_string(memory.knn));
  }
  if (memory.gate) throw Error("[memory] gate: expected false" + where + "true");
  if (memory.frozen_keys) throw Error("[memory] frozen_keys: expected false" + where + "true");
  if (memory.open_keys) {
    throw Error("[memory] open_keys: expected none" + where + std::to_string(*memory.open_keys));
  }
}

// What src/ops/update/missed_steps.h needs.
void check_dense_adamw(const TrainStepConfig& train) {
  constexpr const char* kWhere = " for value_optimizer \"dense_adamw\", got ";
  const double most = 0.995 * std::sqrt(train.value_beta2);
  if (train.value_beta1 > most) {
    throw Error("[train] value_beta1: expected at most 0.995 sqrt(value_beta2) = " + text_of(most) +
                kWhere + text_of(train.value_beta1));
  }
  if (train.value_beta2 == 0) {
    throw Error(std::string("[train] value_beta2: expected a number above 0") + kWhere + "0");
  }
  if (train.value_lr * train.value_weight_decay >= 1) {
    throw Error("[train] value_weight_decay: expected below 1 / value_lr = " +
                text_of(1 / train.value_lr) + kWhere + text_of(train.value_weight_decay));
  }
  if (train.eps < 1e-30) {
    throw Error(std::string("[train] eps: expected at least 1e-30") + kWhere + text_of(train.eps));
  }
}

}  // namespace

void MemoryConfig::validate_layer(std::int64_t dim) const {
  check_size("[model] dim", dim, 1);
  check_size("[memory] n_keys", n_keys, 1);
  check_size("[memory] heads", heads, 1);
  check_size("[memory] knn", knn, 1);
  check_size("[memory] k_dim", k_dim, 2);
  check_size("[memory] v_dim", v_dim.value_or(dim), 1);
  if (knn > n_keys) {
    throw Error("[memory] knn: expected at most n_keys (" + std::to_string(n_keys) + "), got " +
                std::to_string(knn));
  }
  if (open_keys && (*open_keys < knn || *open_keys > n_keys)) {
    throw Error("[memory] open_keys: expected at least knn (" + std::to_string(knn) +
                ") and at most n_keys (" + std::to_string(n_keys) + "), got " +
                std::to_string(*open_keys));
  }
  if (k_dim % 2 != 0) {
    throw Error("[memory] k_dim: expected an even number, got " + std::to_string(k_dim));
  }
  if (n_keys > (std::int64_t{1} << 30) ||
      n_keys * n_keys > (std::int64_t{1} << 60) / (dim + v_dim.value_or(dim))) {
    throw Error("[memory] n_keys: expected n_keys^2 rows below 2^60 numbers, got " +
                std::to_string(n_keys));
  }
  if (gate_dim) {
    check_size("[memory] gate_dim", *gate_dim, 1);
    if (!gate) throw Error("[memory] gate: expected true beside gate_dim, got false");
  }
  if (is_ngram()) check_ngram(*this);
  for (const double scale : output_scales) check_positive("[memory] output_scales", scale);
  const std::int64_t width = v_dim.value_or(dim);
  if (!value_proj.value_or(true) && width != dim) {
    throw Error("[memory] value_proj: expected true where v_dim (" + std::to_string(width) +
                ") differs from dim (" + std::to_string(dim) + "), got false");
  }
}

void MemoryConfig::validate(std::int64_t dim, std::int64_t decoder_layers) const {
  validate_layer(dim);
  const std::size_t count = (layers ? *layers : default_memory_layers(decoder_layers)).size();
  if (!output_scales.empty() && output_scales.size() != count) {
    throw Error("[memory] output_scales: expected " + std::to_string(count) +
                " numbers, one for each layer with memory, got " +
                std::to_string(output_scales.size()));
  }
  if (!layers) return;
  std::int64_t before = -1;
  for (std::int64_t layer : *layers) {
    if (layer < 0 || layer >= decoder_layers) {
      throw Error("[memory] layers: expected layers from 0 to " +
                  std::to_string(decoder_layers - 1) + ", got " + std::to_string(layer));
    }
    if (layer <= before) {
      throw Error("[memory] layers: expected ascending numbers, got " + std::to_string(layer) +
                  " after " + std::to_string(before));
    }
    before = layer;
  }
}

std::vector<std::int64_t> default_memory_layers(std::int64_t n) {
  if (n <= 0) return {};
  const std::int64_t count = std::min<std::int64_t>(3, n),
                     stride = std::max<std::int64_t>(1, n / 4);
  const std::int64_t first = std::max<std::int64_t>(0, (n - 1 - stride * (count - 1)) / 2);
  std::vector<std::int64_t> layers;
  for (std::int64_t i = 0; i < count; ++i) layers.push_back(first + i * stride);
  return layers;
}

std::int64_t MemoryConfig::row_width(std::int64_t dim) const {
  return value_dim(dim) + (is_peer() ? dim : 0);
}

bool MemoryConfig::has_value_proj(std::int64_t dim) const {
  return value_proj.value_or(has_swilu() || is_ngram() || value_dim(dim) != dim);
}

std::int64_t ModelConfig::value_dim() const { return memory ? memory->value_dim(dim) : dim; }

std::int64_t ModelConfig::row_width() const { return memory ? memory->row_width(dim) : dim; }

std::optional<std::int64_t> ModelConfig::window_of(std::int64_t layer) const {
  const bool slides = !sliding_layers || std::ranges::binary_search(*sliding_layers, layer);
  return slides ? sliding_window : std::nullopt;
}

std::vector<std::int64_t> ModelConfig::memory_layers() const {
  if (!memory) return {};
  return memory->layers ? *memory->layers : default_memory_layers(layers);
}

void ModelConfig::validate() const {
  check_size("[model] dim", dim, 1);
  check_size("[model] layers", layers, 1);
  if (layers > kMostLayers) {
    throw Error("[model] layers: expected at most " + std::to_string(kMostLayers) + ", got " +
                std::to_string(layers));
  }
  check_size("[model] heads", heads, 1);
  check_size("[model] kv_heads", num_kv_heads(), 1);
  check_size("[model] ff_dim", ff_dim, 1);
  check_size("[model] experts", experts, 1);
  if (experts > kMostExperts) {
    throw Error("[model] experts: expected at most " + std::to_string(kMostExperts) + ", got " +
                std::to_string(experts));
  }
  check_size("[model] vocab_size", vocab_size, 1);
  check_size("[model] context", context, 1);
  if (!head_dim && dim % heads != 0) {
    throw Error("[model] dim: expected a multiple of heads (" + std::to_string(heads) + "), got " +
                std::to_string(dim));
  }
  if (heads % num_kv_heads() != 0) {
    throw Error("[model] kv_heads: expected a divisor of heads (" + std::to_string(heads) +
                "), got " + std::to_string(num_kv_heads()));
  }
  check_size("[model] head_dim", attention_head_dim(), 1);
  if (attention_head_dim() % 2 != 0) {
    throw Error("[model] head_dim: expected an even number, got " +
                std::to_string(attention_head_dim()));
  }
  check_rope(rope);
  if (rope.type == "dynamic") check_size("[model] head_dim", attention_head_dim(), 4);
  check_attention(*this);
  check_positive("[model] norm_eps", norm_eps);
  if (memory) memory->validate(dim, layers);
  const bool has_feed_forward = !memory || memory->placement == MemoryPlacement::kBeside ||
                                static_cast<std::int64_t>(memory_layers().size()) < layers;
  if (experts > 1 && !has_feed_forward) {
    throw Error(
        "[model] experts: expected 1 where memory stands in place of every feed-forward, got " +
        std::to_string(experts));
  }
}

void TrainConfig::validate() const {
  model.validate();
  if (out.empty()) throw Error("out: expected a folder, got \"\"");
  if (data.train.empty()) throw Error("[data] train: expected at least one file, got none");
  if (train.steps.has_value() == train.epochs.has_value()) {
    throw Error(std::string("[train] steps, epochs: expected one of the two, got ") +
                (train.steps ? "both" : "none"));
  }
  if (train.steps) check_min("[train] steps", *train.steps, 1);
  if (train.epochs) check_positive("[train] epochs", *train.epochs);
  check_size("[train] batch_tokens", train.batch_tokens, 1);
  check_min("[train] accumulate", train.accumulate, 1);
  check_range("[train] lr", train.lr, 0, 1e3);
  check_range("[train] value_lr", train.value_lr, 0, 1e3);
  check_range("[train] min_lr_ratio", train.min_lr_ratio, 0, 1);
  check_range("[train] weight_decay", train.weight_decay, 0, 1e3);
  check_range("[train] value_weight_decay", train.value_weight_decay, 0, 1e3);
  const std::pair<const char*, double> betas[] = {{"[train] beta1", train.beta1},
                                                  {"[train] beta2", train.beta2},
                                                  {"[train] value_beta1", train.value_beta1},
                                                  {"[train] value_beta2", train.value_beta2}};
  for (const auto& [name, beta] : betas) check_range(name, beta, 0, 0.999999999);
  check_positive("[train] eps", train.eps);
  check_range("[train] balance", train.balance, 0, 1e3);
  if (train.clip) check_positive("[train] clip", *train.clip);
  if (train.value_clip) check_positive("[train] value_clip", *train.value_clip);
  check_min("[train] warmup", train.warmup, 0);
  check_min("[train] threads", train.threads, 0);
  if (train.threads > kMostThreads) {
    throw Error("[train] threads: expected at most " + std::to_string(kMostThreads) + ", got " +
                std::to_string(train.threads));
  }
  check_min("[train] log_every", train.log_every, 1);
  check_min("[train] eval_every", train.eval_every, 0);
  check_min("[train] save_every", train.save_every, 0);
  check_min("[train] sample_every", train.sample_every, 0);
  check_min("[train] keep", train.keep, 1);
  check_min("[train] max_bad_steps", train.max_bad_steps, 1);
  check_min("[parallel] groups", parallel.groups, 1);
  check_range("[parallel] bucket_mb", parallel.bucket_mb, 0.001, 1000);
  check_range("[parallel] timeout_s", parallel.timeout_s, 0.1, 1e6);
  if (train.value_optimizer == PoolOptimizer::kDenseAdamW) check_dense_adamw(train);
  if (train.pool_folder && train.pool_folder->empty()) {
    throw Error("[train] pool_folder: expected a folder, got \"\"");
  }
  if (model.memory && is_quantized(model.memory->row_dtype)) {
    throw Error(std::string("[memory] row_dtype: expected float32 or bfloat16 to train, got ") +
                row_type_name(model.memory->row_dtype) +
                "; memlayers quantize makes a trained model with such rows");
  }
  if (train.master_rows && !(model.memory && model.memory->row_dtype == RowType::kBFloat16)) {
    throw Error(
        "[train] master_rows: expected false unless [memory] row_dtype is \"bfloat16\", got true");
  }
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "memlayers/error.h"

namespace memlayers {
namespace {

// Far above any machine, and such that products of two fit in int64_t.
constexpr std::int64_t kMost = std::int64_t{1} << 31;

std::string text_of(double value) {  // the shortest that reads back the same
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

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
  if (rope.type != "default" && rope.type != "linear" && rope.type != "llama3") {
    throw Error("[model] rope_type: expected \"default\", \"linear\" or \"llama3\", got \"" +
                rope.type + "\"");
  }
  check_positive("[model] rope_factor", rope.factor);
  if (rope.type != "llama3") return;
  check_positive("[model] rope_low_freq_factor", rope.low_freq_factor);
  if (!(rope.high_freq_factor > rope.low_freq_factor) || !std::isfinite(rope.high_freq_factor)) {
    throw Error("[model] rope_high_freq_factor: expected a number above rope_low_freq_factor (" +
                text_of(rope.low_freq_factor) + "), got " + text_of(rope.high_freq_factor));
  }
  check_size("[model] rope_original_context", rope.original_context, 1);
}

// What src/ops/missed_steps.h needs.
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
  const std::int64_t width = v_dim.value_or(dim);
  if (!value_proj.value_or(true) && width != dim) {
    throw Error("[memory] value_proj: expected true where v_dim (" + std::to_string(width) +
                ") differs from dim (" + std::to_string(dim) + "), got false");
  }
}

void MemoryConfig::validate(std::int64_t dim, std::int64_t decoder_layers) const {
  validate_layer(dim);
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

std::int64_t ModelConfig::value_dim() const { return memory ? memory->v_dim.value_or(dim) : dim; }

std::int64_t ModelConfig::row_width() const {
  const bool is_peer = memory && memory->variant == MemoryVariant::kPeer;
  return value_dim() + (is_peer ? dim : 0);
}

std::vector<std::int64_t> ModelConfig::memory_layers() const {
  if (!memory) return {};
  return memory->layers ? *memory->layers : default_memory_layers(layers);
}

void ModelConfig::validate() const {
  check_size("[model] dim", dim, 1);
  check_size("[model] layers", layers, 1);
  check_size("[model] heads", heads, 1);
  check_size("[model] kv_heads", num_kv_heads(), 1);
  check_size("[model] ff_dim", ff_dim, 1);
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
  check_positive("[model] norm_eps", norm_eps);
  if (memory) memory->validate(dim, layers);
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
  if (train.clip) check_positive("[train] clip", *train.clip);
  if (train.value_clip) check_positive("[train] value_clip", *train.value_clip);
  check_min("[train] warmup", train.warmup, 0);
  check_size("[train] threads", train.threads, 0);
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

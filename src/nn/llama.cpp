// SPDX-License-Identifier: Apache-2.0
#include "memlayers/llama.h"

#include <torch/nn/functional/loss.h>
#include <torch/nn/init.h>

#include <cmath>

#include "nn/decoder_layer.h"
#include "nn/project.h"
#include "nn/rms_norm.h"
#include "nn/table.h"

namespace memlayers {

KvCache::KvCache(const ModelConfig& config, std::int64_t batch, std::int64_t capacity)
    : batch_(batch), capacity_(capacity) {
  TORCH_CHECK_VALUE(batch >= 1 && capacity >= 1, "KvCache: expected batch and capacity >= 1, got ",
                    batch, " and ", capacity);
  const at::ScalarType dtype = nn::element_type(config.dtype);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::vector<std::int64_t> shape{batch, config.num_kv_heads(), capacity,
                                          config.attention_head_dim()};
    keys_.push_back(torch::zeros(shape, dtype));
    values_.push_back(torch::zeros(shape, dtype));
  }
}

void KvCache::set_padding(std::vector<std::int64_t> padding) {
  TORCH_CHECK_VALUE(static_cast<std::int64_t>(padding.size()) == batch_,
                    "KvCache: expected padding for ", batch_, " rows, got ", padding.size());
  TORCH_CHECK_VALUE(length_ == 0,
                    "KvCache: expected padding before the first tokens, got it after ", length_);
  padding_ = std::move(padding);
}

std::optional<std::uint64_t> KvCache::pool_version() const {
  if (!rows_) return std::nullopt;
  return rows_->version();
}

void KvCache::keep_rows(const std::vector<std::int64_t>& rows) {
  const at::Tensor index = torch::tensor(rows, torch::kLong);
  for (at::Tensor& keys : keys_) keys = keys.index_select(0, index.to(keys.device()));
  for (at::Tensor& values : values_) values = values.index_select(0, index.to(values.device()));
  if (!padding_.empty()) {
    std::vector<std::int64_t> kept;
    for (std::int64_t row : rows) kept.push_back(padding_[row]);
    padding_ = std::move(kept);
  }
  batch_ = static_cast<std::int64_t>(rows.size());
}

namespace {

// The pool's options as far as the configuration says them.
PoolOptions pool_options(const ModelConfig& config) {
  config.validate();
  if (config.memory_layers().empty()) return {};
  return {.n_keys = config.memory->n_keys,
          .width = config.row_width(),
          .row_dtype = config.memory->row_dtype,
          .u_width = config.row_width() - config.value_dim()};
}

PoolOptions new_pool(const ModelConfig& config, std::optional<std::uint64_t> seed,
                     const std::optional<std::string>& folder, const MemoryGroup& group) {
  PoolOptions options = pool_options(config);
  options.init_std = seed ? 1 / std::sqrt(static_cast<double>(config.value_dim())) : 0.0;
  options.seed = seed.value_or(0);
  options.folder = folder;
  options.group = group;
  return options;
}

PoolOptions stored_pool(const ModelConfig& config, std::shared_ptr<StoreReader> store) {
  PoolOptions options = pool_options(config);
  options.store = std::move(store);
  return options;
}

}  // namespace

LlamaImpl::LlamaImpl(const ModelConfig& config, std::optional<std::uint64_t> pool_seed,
                     const std::optional<std::string>& pool_folder, const MemoryGroup& group)
    : LlamaImpl(config, new_pool(config, pool_seed, pool_folder, group)) {}

LlamaImpl::LlamaImpl(const ModelConfig& config, std::shared_ptr<StoreReader> store)
    : LlamaImpl(config, stored_pool(config, std::move(store))) {}

LlamaImpl::LlamaImpl(const ModelConfig& config, const PoolOptions& pool) : config_(config) {
  const std::vector<std::int64_t> with_memory = config.memory_layers();
  if (!with_memory.empty()) pool_ = register_module("pool", MemoryPool(pool));
  embed_tokens_ =
      register_module("embed_tokens", torch::nn::Embedding(config.vocab_size, config.dim));
  torch::nn::init::normal_(embed_tokens_->weight, 0, 0.02);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const bool has_memory =
        std::find(with_memory.begin(), with_memory.end(), layer) != with_memory.end();
    layers_.push_back(
        register_module("layer" + std::to_string(layer),
                        std::make_shared<DecoderLayerImpl>(
                            config, layer, has_memory ? pool_ : MemoryPool(nullptr))));
  }
  norm_ = register_parameter("norm", torch::ones({config.dim}));
  if (!config.tie_embeddings) {
    lm_head_ = register_module(
        "lm_head",
        torch::nn::Linear(torch::nn::LinearOptions(config.dim, config.vocab_size).bias(false)));
    torch::nn::init::normal_(lm_head_->weight, 0, 0.02);
  }
  rope_frequencies_ = rope_frequencies(config.rope, config.attention_head_dim());
  if (config.dtype == DenseType::kBFloat16) {
    const torch::NoGradGuard no_grad;
    for (auto& [name, parameter] : dense_parameters())
      parameter.set_data(parameter.to(torch::kBFloat16));
  }
}

at::Tensor LlamaImpl::forward(const at::Tensor& tokens, KvCache* cache) {
  return logits(hidden_states(tokens, cache));
}

at::Tensor LlamaImpl::hidden_states(const at::Tensor& tokens, KvCache* cache) {
  TORCH_CHECK_VALUE(tokens.dim() == 2, "Llama: expected tokens [B, T], got ", tokens.sizes());
  TORCH_CHECK_TYPE(tokens.scalar_type() == torch::kLong,
                   "Llama: expected tokens of type Long, got ", tokens.scalar_type());
  const std::int64_t B = tokens.size(0), T = tokens.size(1);
  const std::int64_t past = cache == nullptr ? 0 : cache->length_;
  if (cache != nullptr) {
    TORCH_CHECK_VALUE(cache->batch_ == B && past + T <= cache->capacity_, "Llama: expected ",
                      cache->batch_, " rows and at most ", cache->capacity_ - past,
                      " tokens more in the cache, got ", tokens.sizes());
  }
  at::Tensor positions = torch::arange(past, past + T, tokens.options()).unsqueeze(0);  // [1, T]
  at::Tensor mask;
  const bool has_padding = cache != nullptr && !cache->padding_.empty();
  if (has_padding) {
    const at::Tensor padding =
        torch::tensor(cache->padding_, tokens.options()).unsqueeze(1);  // [B, 1]
    const at::Tensor keys = torch::arange(0, past + T, tokens.options());
    // Causal, and no padding; a padded query sees itself, so that its softmax has something to sum.
    const at::Tensor query = positions.squeeze(0).unsqueeze(1);            // [T, 1]
    const at::Tensor causal = (keys <= query).unsqueeze(0);                // [1, T, past + T]
    const at::Tensor real = (keys >= padding).unsqueeze(1);                // [B, 1, past + T]
    mask = ((causal & real) | (keys == query).unsqueeze(0)).unsqueeze(1);  // [B, 1, T, past + T]
    positions = (positions - padding).clamp_min(0);                        // [B, T]
  } else if (past > 0 && T > 1) {
    const at::Tensor keys = torch::arange(0, past + T, tokens.options());
    mask = (keys <= positions.squeeze(0).unsqueeze(1)).view({1, 1, T, past + T});
  }
  at::Tensor x = embed_tokens_(tokens);
  const RopeTables rope =
      rope_tables(rope_frequencies_.to(tokens.device()), positions, x.scalar_type());
  // All layers and, with a cache, all tokens of a request read one version of the pool.
  std::optional<Snapshot> rows = cache == nullptr ? std::nullopt : cache->rows_;
  if (!rows && !pool_.is_empty()) rows = pool_->snapshot();
  if (cache != nullptr) cache->rows_ = rows;
  const Snapshot* read = rows ? &*rows : nullptr;
  for (const auto& layer : layers_) x = layer->forward(x, rope, mask, cache, read);
  if (cache != nullptr) cache->length_ += T;
  return nn::rms_norm(x, norm_, config_.norm_eps);
}

at::Tensor LlamaImpl::logits(const at::Tensor& hidden) {
  const at::Tensor& weight = config_.tie_embeddings ? embed_tokens_->weight : lm_head_->weight;
  return nn::project(hidden, weight).to(torch::kFloat);
}

std::vector<std::pair<std::int64_t, MemoryLayer>> LlamaImpl::memory_layers() const {
  std::vector<std::pair<std::int64_t, MemoryLayer>> found;
  for (const auto& layer : layers_) {
    if (!layer->memory.is_empty()) found.emplace_back(layer->index, layer->memory);
  }
  return found;
}

void LlamaImpl::quantize_pool(RowType type) {
  TORCH_CHECK_VALUE(!pool_.is_empty(), "Llama::quantize_pool: expected memory layers, got none");
  pool_->quantize(type);
  config_.memory->row_dtype = type;
}

void LlamaImpl::open_keys() {
  if (config_.memory) config_.memory->open_keys.reset();
  for (auto& [index, layer] : memory_layers()) layer->open_keys();
}

std::vector<std::pair<std::string, at::Tensor>> LlamaImpl::dense_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> named;
  named.emplace_back("model.embed_tokens.weight", embed_tokens_->weight);
  for (const auto& layer : layers_) {
    const std::string prefix = "model.layers." + std::to_string(layer->index) + ".";
    for (const auto& parameter : layer->named_parameters()) {
      std::string name = parameter.key();
      if (name.starts_with("memory.pool.")) continue;
      // Hugging Face keeps norms in modules of their own; ours are plain tensors.
      if (name.ends_with("_layernorm")) name += ".weight";
      named.emplace_back(prefix + name, parameter.value());
    }
  }
  named.emplace_back("model.norm.weight", norm_);
  if (!config_.tie_embeddings) named.emplace_back("lm_head.weight", lm_head_->weight);
  return named;
}

at::Tensor answer_loss(Llama& model, const at::Tensor& hidden, const at::Tensor& targets) {
  const at::Tensor flat = targets.flatten();
  const at::Tensor index = (flat != kIgnoredTarget).nonzero().squeeze(1);
  // Zero that still depends on the parameters, so that backward has a graph.
  if (index.numel() == 0) return hidden.sum() * 0;
  const at::Tensor chosen = hidden.flatten(0, 1).index_select(0, index);
  return torch::nn::functional::cross_entropy(model->logits(chosen), flat.index_select(0, index));
}

}  // namespace memlayers

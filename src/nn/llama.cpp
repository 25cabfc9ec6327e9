// SPDX-License-Identifier: Apache-2.0
#include "memlayers/llama.h"

#include <torch/nn/functional/loss.h>
#include <torch/nn/init.h>

#include <algorithm>
#include <cmath>

#include "nn/decoder_layer.h"
#include "nn/linear.h"
#include "nn/ngrams.h"
#include "nn/rms_norm.h"
#include "nn/step.h"
#include "nn/table.h"
#include "nn/unset_weights.h"

namespace memlayers {

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
  const bool is_unset = nn::are_weights_unset();
  embed_tokens_ =
      register_module("embed_tokens", nn::make_embedding(config.vocab_size, config.dim));
  if (!is_unset) torch::nn::init::normal_(embed_tokens_->weight, 0, 0.02);
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
    lm_head_ = register_module("lm_head",
                               nn::make_linear(config.dim, config.vocab_size, /*has_bias=*/false));
    if (!is_unset) torch::nn::init::normal_(lm_head_->weight, 0, 0.02);
  }
  rope_frequencies_ = rope_frequencies(config.rope, config.attention_head_dim());
  if (config.dtype == DenseType::kBFloat16) {
    const torch::NoGradGuard no_grad;
    for (auto& [name, parameter] : dense_parameters()) {
      parameter.set_data(is_unset ? torch::empty_like(parameter, torch::kBFloat16)
                                  : parameter.to(torch::kBFloat16));
    }
  }
}

at::Tensor LlamaImpl::forward(const at::Tensor& tokens) { return logits(hidden_states(tokens)); }

struct LlamaImpl::Pass {
  RopeTables rope;
  std::optional<nn::DocumentRuns> documents;
  std::optional<Snapshot> rows;  // all layers read one version of the pool
  at::Tensor suffixes = {};

  MemoryInput input() const { return {rows ? &*rows : nullptr, suffixes}; }
  const nn::DocumentRuns* runs() const { return documents ? &*documents : nullptr; }
};

LlamaImpl::Pass LlamaImpl::pass_of(const at::Tensor& positions, const at::Tensor& tokens,
                                   const at::Tensor& document_begin, const Snapshot* rows) {
  const at::Tensor frequencies = config_.rope.type == "dynamic"
                                     ? rope_frequencies(config_.rope, config_.attention_head_dim(),
                                                        positions.max().item<std::int64_t>() + 1)
                                     : rope_frequencies_;
  Pass pass;
  pass.rope = rope_tables(frequencies.to(positions.device()), positions, dense_type(),
                          config_.rope.attention_factor);
  if (document_begin.defined()) pass.documents = nn::document_runs(document_begin, dense_type());
  if (const std::int64_t seen = nn::suffix_length(config_); seen > 0) {
    TORCH_CHECK_VALUE(tokens.defined(),
                      "Llama: expected tokens for a memory of variant \"ngram\", got none");
    pass.suffixes = nn::suffixes_of(tokens, document_begin, seen);
  }
  if (rows != nullptr) {
    pass.rows = *rows;
  } else if (!pool_.is_empty()) {
    pass.rows = pool_->snapshot();
  }
  return pass;
}

LlamaImpl::Pass LlamaImpl::pass_of(const at::Tensor& tokens, std::int64_t length,
                                   const PackedSequences& packed) {
  std::vector<std::int64_t> positions, begin;
  for (std::int64_t t = 0; t < packed.prefix; ++t) positions.push_back(t);
  for (const std::int64_t own : packed.lengths) {
    begin.insert(begin.end(), std::max<std::int64_t>(own, 0),
                 static_cast<std::int64_t>(begin.size()));
    for (std::int64_t t = 0; t < own; ++t) positions.push_back(packed.prefix + t);
  }
  TORCH_CHECK_VALUE(static_cast<std::int64_t>(positions.size()) == length,
                    "Llama: expected packed sequences of together ", length, " tokens, got ",
                    positions.size());
  const at::Tensor where = torch::tensor(positions, torch::kLong).unsqueeze(0);
  if (packed.prefix == 0) {
    return pass_of(where, tokens, torch::tensor(begin, torch::kLong).unsqueeze(0));
  }
  TORCH_CHECK_VALUE(nn::suffix_length(config_) == 0,
                    "Llama: expected sequences without a prefix that they share for a memory of "
                    "variant \"ngram\", got one of ",
                    packed.prefix, " tokens");
  Pass pass = pass_of(where, tokens, {});
  pass.documents = nn::document_runs(packed.prefix, packed.lengths, dense_type());
  return pass;
}

std::size_t LlamaImpl::first_memory() const {
  const auto first =
      std::ranges::find_if(layers_, [](const auto& layer) { return !layer->memory.is_empty(); });
  TORCH_CHECK_VALUE(first != layers_.end(), "Llama: expected memory layers, got none");
  return static_cast<std::size_t>(first - layers_.begin());
}

namespace {

void check_tokens(const at::Tensor& tokens) {
  TORCH_CHECK_VALUE(tokens.dim() == 2, "Llama: expected tokens [B, T], got ", tokens.sizes());
  TORCH_CHECK_TYPE(tokens.scalar_type() == torch::kLong,
                   "Llama: expected tokens of type Long, got ", tokens.scalar_type());
}

void check_packed(const at::Tensor& tokens) {
  check_tokens(tokens);
  TORCH_CHECK_VALUE(tokens.size(0) == 1, "Llama: expected packed tokens [1, T], got ",
                    tokens.sizes());
}

void check_states(const at::Tensor& states, const at::Tensor& tokens, std::int64_t dim) {
  TORCH_CHECK_VALUE(states.dim() == 3 && states.size(2) == dim, "Llama: expected states [B, T, ",
                    dim, "], got ", states.sizes());
  if (!tokens.defined()) return;
  check_tokens(tokens);
  TORCH_CHECK_VALUE(tokens.sizes() == states.sizes().slice(0, 2), "Llama: expected tokens ",
                    states.sizes().slice(0, 2), " of the states, got ", tokens.sizes());
}

at::Tensor positions_of(const at::Tensor& states) {  // [1, T] of states or tokens [B, T, ..]
  return torch::arange(states.size(1), states.options().dtype(torch::kLong)).unsqueeze(0);
}

}  // namespace

at::Tensor LlamaImpl::hidden_states(const at::Tensor& tokens, const at::Tensor& document_begin) {
  return hidden_states(tokens, document_begin, nullptr);
}

at::Tensor LlamaImpl::hidden_states(const at::Tensor& tokens, const at::Tensor& document_begin,
                                    const Snapshot* rows) {
  check_tokens(tokens);
  at::Tensor positions = positions_of(tokens);
  bool has_several = false;  // documents in a row
  if (document_begin.defined()) {
    TORCH_CHECK_VALUE(document_begin.sizes() == tokens.sizes() &&
                          document_begin.scalar_type() == torch::kLong && document_begin.is_cpu(),
                      "Llama: expected document_begin of the shape of tokens, ", tokens.sizes(),
                      ", of type Long on the CPU, got ", document_begin.sizes(), " of type ",
                      document_begin.scalar_type());
    has_several = document_begin.any().item<bool>();
    if (has_several) positions = positions - document_begin.to(tokens.device());  // [B, T]
  }
  const Pass pass = pass_of(positions, tokens, has_several ? document_begin : at::Tensor(), rows);
  return through_all(tokens, pass);
}

at::Tensor LlamaImpl::hidden_states(const at::Tensor& tokens, const PackedSequences& packed) {
  check_packed(tokens);
  return through_all(tokens, pass_of(tokens, tokens.size(1), packed));
}

at::Tensor LlamaImpl::through_all(const at::Tensor& tokens, const Pass& pass) {
  at::Tensor x = embed_tokens_(tokens).to(dense_type());
  for (const auto& layer : layers_) {
    x = layer->forward(x, pass.rope, pass.input(), pass.runs());
  }
  return nn::rms_norm(x, norm_, config_.norm_eps);
}

at::Tensor LlamaImpl::states_before_memory(const at::Tensor& tokens) {
  check_tokens(tokens);
  return up_to_memory(tokens, pass_of(positions_of(tokens), tokens, {}));
}

at::Tensor LlamaImpl::states_before_memory(const at::Tensor& tokens,
                                           const PackedSequences& packed) {
  check_packed(tokens);
  return up_to_memory(tokens, pass_of(tokens, tokens.size(1), packed));
}

at::Tensor LlamaImpl::up_to_memory(const at::Tensor& tokens, const Pass& pass) {
  const std::size_t first = first_memory();
  at::Tensor x = embed_tokens_(tokens).to(dense_type());
  for (std::size_t i = 0; i < first; ++i) x = layers_[i]->forward(x, pass.rope, {}, pass.runs());
  return layers_[first]->attend(x, pass.rope, pass.runs());
}

at::Tensor LlamaImpl::hidden_states_from(const at::Tensor& states, const at::Tensor& tokens) {
  check_states(states, tokens, config_.dim);
  return from_memory(states, pass_of(positions_of(states), tokens, {}));
}

at::Tensor LlamaImpl::hidden_states_from(const at::Tensor& states, const at::Tensor& tokens,
                                         const PackedSequences& packed) {
  check_states(states, tokens, config_.dim);
  if (tokens.defined()) check_packed(tokens);
  return from_memory(states, pass_of(tokens, states.size(1), packed));
}

at::Tensor LlamaImpl::from_memory(const at::Tensor& states, const Pass& pass) {
  const std::size_t first = first_memory();
  at::Tensor x = layers_[first]->go_on(states, pass.input());
  for (std::size_t i = first + 1; i < layers_.size(); ++i) {
    x = layers_[i]->forward(x, pass.rope, pass.input(), pass.runs());
  }
  return nn::rms_norm(x, norm_, config_.norm_eps);
}

std::vector<LlamaImpl::FeedForwardStates> LlamaImpl::feed_forward_states(
    const at::Tensor& tokens, std::span<const std::int64_t> layers) {
  check_tokens(tokens);
  return feed_forward_states(tokens, layers, pass_of(positions_of(tokens), tokens, {}));
}

std::vector<LlamaImpl::FeedForwardStates> LlamaImpl::feed_forward_states(
    const at::Tensor& tokens, std::span<const std::int64_t> layers, const PackedSequences& packed) {
  check_packed(tokens);
  return feed_forward_states(tokens, layers, pass_of(tokens, tokens.size(1), packed));
}

std::vector<LlamaImpl::FeedForwardStates> LlamaImpl::feed_forward_states(
    const at::Tensor& tokens, std::span<const std::int64_t> layers, const Pass& pass) {
  at::Tensor x = embed_tokens_(tokens).to(dense_type());
  std::vector<FeedForwardStates> states;
  for (const auto& layer : layers_) {
    if (states.size() == layers.size()) break;
    const at::Tensor attended = layer->attend(x, pass.rope, pass.runs());
    if (layer->index == layers[states.size()]) {
      TORCH_CHECK_VALUE(layer->has_feed_forward(), "Llama: layer ", layer->index,
                        ": expected a feed-forward block, got none");
      const at::Tensor in = layer->normed(attended);
      states.push_back({in, layer->feed(in)});
    }
    x = layer->go_on(attended, pass.input());
  }
  TORCH_CHECK_VALUE(states.size() == layers.size(), "Llama: expected layers from 0 to ",
                    config_.layers - 1, ", ascending, got ",
                    at::IntArrayRef(layers.data(), layers.size()));
  return states;
}

at::Tensor LlamaImpl::step(std::span<const SequenceTokens> sequences) {
  TORCH_CHECK_VALUE(norm_.is_cpu(), "Llama::step: expected a model on the CPU, got one on ",
                    norm_.device());
  const torch::NoGradGuard no_grad;
  const nn::TokenByToken token_by_token;
  const nn::Step step(sequences, config_, pool_, rope_frequencies_);
  at::Tensor tokens = torch::empty({step.tokens.count}, torch::kLong);
  auto* next = tokens.mutable_data_ptr<std::int64_t>();
  for (const SequenceTokens& sequence : sequences) {
    next = std::ranges::copy(sequence.tokens, next).out;
  }
  at::Tensor x = embed_tokens_(tokens).to(dense_type());
  for (const auto& layer : layers_) x = layer->step(x, step);
  x = nn::rms_norm(x, norm_, config_.norm_eps);
  step.commit(sequences);
  return x;
}

at::Tensor LlamaImpl::step_logits(const at::Tensor& hidden) {
  const torch::NoGradGuard no_grad;
  const nn::TokenByToken token_by_token;
  return logits(hidden);
}

at::Tensor LlamaImpl::logits(const at::Tensor& hidden) {
  const ops::Weights weights =
      config_.tie_embeddings ? nn::weights_of(*embed_tokens_) : nn::weights_of(*lm_head_);
  return nn::project(hidden, weights).to(torch::kFloat);
}

std::vector<std::pair<std::int64_t, MemoryLayer>> LlamaImpl::memory_layers() const {
  std::vector<std::pair<std::int64_t, MemoryLayer>> found;
  for (const auto& layer : layers_) {
    if (!layer->memory.is_empty()) found.emplace_back(layer->index, layer->memory);
  }
  return found;
}

at::Tensor LlamaImpl::take_balance() {
  at::Tensor sum;
  for (const auto& layer : layers_) {
    if (layer->experts.is_empty()) continue;
    const at::Tensor balance = layer->experts->take_balance();
    if (balance.defined()) sum = sum.defined() ? sum + balance : balance;
  }
  return sum;
}

void LlamaImpl::quantize_pool(RowType type) {
  TORCH_CHECK_VALUE(!pool_.is_empty(), "Llama::quantize_pool: expected memory layers, got none");
  pool_->quantize(type);
  config_.memory->row_dtype = type;
}

void LlamaImpl::set_output_scales(std::vector<double> scales) {
  auto layers = memory_layers();
  TORCH_CHECK_VALUE(scales.size() == layers.size(), "Llama::set_output_scales: expected ",
                    layers.size(), " numbers, one for each memory layer, got ", scales.size());
  for (std::size_t i = 0; i < scales.size(); ++i) layers[i].second->output_scale = scales[i];
  config_.memory->output_scales = std::move(scales);
}

void LlamaImpl::open_keys() {
  if (config_.memory) config_.memory->open_keys.reset();
  for (auto& [index, layer] : memory_layers()) layer->open_keys();
}

std::vector<std::pair<std::string, at::Tensor>> LlamaImpl::dense_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> named;
  const auto add = [&](const std::string& name, const at::Tensor& weight) {
    if (weight.defined()) named.emplace_back(name, weight);
  };
  add("model.embed_tokens.weight", embed_tokens_->weight);
  for (const auto& layer : layers_) {
    const std::string prefix = "model.layers." + std::to_string(layer->index) + ".";
    for (const auto& parameter : layer->named_parameters()) {
      std::string name = parameter.key();
      if (name.starts_with("memory.pool.")) continue;
      // Hugging Face keeps norms in modules of their own; ours are plain tensors.
      const bool is_of_attention = name.starts_with("self_attn.") && name.ends_with("_norm");
      if (is_of_attention || name.ends_with("_layernorm")) name += ".weight";
      named.emplace_back(prefix + name, parameter.value());
    }
  }
  named.emplace_back("model.norm.weight", norm_);
  if (!config_.tie_embeddings) add("lm_head.weight", lm_head_->weight);
  return named;
}

std::vector<std::pair<std::string, Linear>> LlamaImpl::packable_linears() const {
  std::vector<std::pair<std::string, Linear>> named;
  for (const auto& layer : layers_) {
    const std::string prefix = "model.layers." + std::to_string(layer->index) + ".";
    for (const auto& module : layer->named_modules(/*name_prefix=*/"", /*include_self=*/false)) {
      // Not what chooses an expert: rounded it would choose others.
      const bool is_dense =
          (module.key().starts_with("self_attn.") || module.key().starts_with("mlp.")) &&
          module.key() != "mlp.gate";
      const auto linear = std::dynamic_pointer_cast<LinearImpl>(module.value());
      if (is_dense && linear) named.emplace_back(prefix + module.key() + ".weight", linear);
    }
  }
  if (!config_.tie_embeddings) named.emplace_back("lm_head.weight", lm_head_);
  return named;
}

at::ScalarType LlamaImpl::dense_type() const { return norm_.scalar_type(); }

at::Tensor answer_loss(Llama& model, const at::Tensor& hidden, const at::Tensor& targets) {
  const at::Tensor flat = targets.flatten();
  const at::Tensor index = (flat != kIgnoredTarget).nonzero().squeeze(1);
  // Zero that still depends on the parameters, so that backward has a graph.
  if (index.numel() == 0) return hidden.sum() * 0;
  const at::Tensor chosen = hidden.flatten(0, 1).index_select(0, index);
  return torch::nn::functional::cross_entropy(model->logits(chosen), flat.index_select(0, index));
}

}  // namespace memlayers

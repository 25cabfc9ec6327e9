// SPDX-License-Identifier: Apache-2.0
#include "memlayers/retrofit.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "edit/phrasings.h"
#include "edit/prose.h"
#include "memlayers/error.h"
#include "nn/unset_weights.h"
#include "ops/linear/weights.h"
#include "train/fact_batch.h"

namespace memlayers {
namespace {

std::vector<std::int64_t> upper_layers(std::int64_t decoder_layers) {
  std::vector<std::int64_t> layers{decoder_layers / 2, decoder_layers * 2 / 3,
                                   decoder_layers * 5 / 6};
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

void share_packed(const auto& from, auto to) {
  if (from->packed() != nullptr) {
    to->set_packed(std::make_shared<const ops::Weights>(*from->packed()));
  }
}

// A decoder of this configuration over the weights of `base`; those of its memory are drawn.
Llama with_memory(Llama& base, const ModelConfig& config, std::uint64_t seed) {
  Llama made = [&] {
    const nn::UnsetWeights unset;
    return Llama(config, std::nullopt);  // rows zero
  }();
  share_packed(base->embedding(), made->embedding());
  const auto packable = base->packable_linears();
  const auto packed = made->packable_linears();
  for (std::size_t i = 0; i < packable.size(); ++i) {
    share_packed(packable[i].second, packed[i].second);
  }
  std::map<std::string, at::Tensor> from;
  for (const auto& [name, weight] : base->dense_parameters()) from.emplace(name, weight);
  for (auto& [name, weight] : made->dense_parameters()) {
    if (const auto found = from.find(name); found != from.end()) weight.set_data(found->second);
  }
  torch::manual_seed(seed);
  for (auto& [number, layer] : made->memory_layers()) layer->reset_parameters();
  return made;
}

std::vector<double> output_scales(Generator& generator, const std::vector<std::int64_t>& layers,
                                  const std::vector<std::string>& background) {
  constexpr std::int64_t kTokens = 8192;  // a median of so many moves by a hundredth
  const c10::InferenceMode inference;
  const std::vector<train::FactRow> rows =
      background.empty() ? edit::prose_rows(generator) : edit::read_rows(generator, background);
  std::vector<std::vector<at::Tensor>> norms(layers.size());
  for (const auto& [tokens, packed] :
       train::packed_texts(rows, generator.model()->config().context, kTokens)) {
    const auto states = generator.model()->feed_forward_states(tokens, layers, packed);
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      norms[layer].push_back(states[layer].out.to(torch::kFloat).norm(2, -1).flatten());
    }
  }
  std::vector<double> scales;
  const double root = std::sqrt(static_cast<double>(generator.model()->config().dim));
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    scales.push_back(torch::cat(norms[layer]).median().item<double>() / root);
    if (!(scales.back() > 0) || !std::isfinite(scales.back())) {
      throw Error("retrofit: layer " + std::to_string(layers[layer]) +
                  ": expected a feed-forward block that gives numbers other than 0, got a median "
                  "norm of " +
                  std::to_string(scales.back() * root));
    }
  }
  return scales;
}

}  // namespace

MemoryConfig retrofitted_memory(const ModelConfig& config, const RetrofitOptions& options) {
  if (!config.memory_layers().empty()) {
    throw Error("retrofit: expected a model without a memory, got one that has one");
  }
  MemoryConfig memory{.layers = options.layers.value_or(upper_layers(config.layers)),
                      .n_keys = options.n_keys,
                      .heads = options.heads,
                      .knn = options.knn,
                      .k_dim = options.k_dim,
                      .v_dim = config.dim,
                      .variant = MemoryVariant::kPlain,
                      .placement = MemoryPlacement::kBeside,
                      .value_proj = false,
                      .gate = options.gate,
                      .gate_dim = options.gate_dim,
                      .row_dtype = options.row_dtype};
  memory.validate(config.dim, config.layers);
  if (memory.layers->empty()) {
    throw Error("[memory] layers: expected at least one layer, got none");
  }
  if (is_quantized(options.row_dtype)) {
    throw Error(std::string("[memory] row_dtype: expected float32 or bfloat16, got ") +
                row_type_name(options.row_dtype));
  }
  return memory;
}

Generator retrofit(Generator& generator, const RetrofitOptions& options) {
  ModelConfig config = generator.model()->config();
  config.memory = retrofitted_memory(config, options);
  const std::vector<double> scales =
      output_scales(generator, *config.memory->layers, options.background);
  Llama made = with_memory(generator.model(), config, options.seed);
  made->set_output_scales(scales);
  return {made, generator.shared_tokenizer()};
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "edit/output_penalty.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>

#include "nn/ngrams.h"
#include "train/fact_batch.h"

namespace memlayers::edit {
namespace {

constexpr std::int64_t kMostTokens = 1 << 15, kAtOnce = 512;

}  // namespace

OutputPenalty::OutputPenalty(Generator& generator, const std::vector<train::FactRow>& text,
                             std::uint64_t seed)
    : random_(seed) {
  const torch::NoGradGuard no_gradient;
  std::vector<std::int64_t> numbers;
  for (const auto& [number, layer] : generator.model()->memory_layers()) {
    numbers.push_back(number);
    layers_.push_back({.memory = layer, .in = {}, .squares = {}});
  }
  std::vector<std::vector<at::Tensor>> in(layers_.size()), squares(layers_.size());
  const std::int64_t seen = nn::suffix_length(generator.model()->config());
  std::vector<at::Tensor> suffixes;
  for (const auto& [tokens, packed] :
       train::packed_texts(text, generator.model()->config().context, kMostTokens)) {
    const auto states = generator.model()->feed_forward_states(tokens, numbers, packed);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      in[l].push_back(states[l].in.flatten(0, 1));
      squares[l].push_back(states[l].out.to(torch::kFloat).square().sum(-1).flatten());
    }
    for (const at::Tensor& own : tokens.split_with_sizes(packed.lengths, 1)) {
      if (seen > 0) suffixes.push_back(nn::suffixes_of(own, {}, seen));
    }
    count_ += tokens.size(1);
  }
  if (seen > 0) suffixes_ = torch::cat(suffixes);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    layers_[l].in = torch::cat(in[l]);
    layers_[l].squares = torch::cat(squares[l]).clamp_min(1e-12);
  }
}

at::Tensor OutputPenalty::draw() {
  std::vector<std::int64_t> drawn(static_cast<std::size_t>(std::min(kAtOnce, count_)));
  for (std::int64_t& token : drawn) {
    token = static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(count_)));
  }
  const at::Tensor places = torch::tensor(drawn, torch::kLong);
  at::Tensor sum;
  for (Layer& layer : layers_) {
    const at::Tensor given = layer.memory->forward(
        layer.in.index_select(0, places), /*rows=*/nullptr, /*continues=*/false,
        suffixes_.defined() ? suffixes_.index_select(0, places) : suffixes_);
    const at::Tensor share =
        given.to(torch::kFloat).square().sum(-1) / layer.squares.index_select(0, places);
    sum = sum.defined() ? sum + share.mean() : share.mean();
  }
  return sum / static_cast<double>(layers_.size());
}

}  // namespace memlayers::edit

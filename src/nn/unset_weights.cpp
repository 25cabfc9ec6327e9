// SPDX-License-Identifier: Apache-2.0
#include "nn/unset_weights.h"

#include <torch/nn/init.h>

#include <utility>

namespace memlayers::nn {
namespace {

thread_local bool leaves_unset = false;

}  // namespace

UnsetWeights::UnsetWeights() : before_(std::exchange(leaves_unset, true)) {}
UnsetWeights::~UnsetWeights() { leaves_unset = before_; }

bool are_weights_unset() { return leaves_unset; }

Linear make_linear(std::int64_t in, std::int64_t out, bool has_bias) {
  if (!leaves_unset) return Linear(torch::nn::LinearOptions(in, out).bias(has_bias));
  // torch's constructor always draws: for a layer without outputs, nothing.
  Linear layer(torch::nn::LinearOptions(in, 0).bias(has_bias));
  layer->options.out_features(out);
  layer->weight.set_data(torch::empty({out, in}));
  if (has_bias) layer->bias.set_data(torch::empty({out}));
  return layer;
}

Linear drawn_linear(std::int64_t in, std::int64_t out, bool has_bias) {
  constexpr double kInitStd = 0.02;
  Linear layer = make_linear(in, out, has_bias);
  if (leaves_unset) return layer;
  const torch::NoGradGuard no_grad;
  torch::nn::init::normal_(layer->weight, 0, kInitStd);
  if (has_bias) torch::nn::init::zeros_(layer->bias);
  return layer;
}

Embedding make_embedding(std::int64_t count, std::int64_t width) {
  torch::nn::EmbeddingOptions options(count, width);
  if (leaves_unset) options._weight(torch::empty({count, width}));
  return Embedding(options);
}

}  // namespace memlayers::nn

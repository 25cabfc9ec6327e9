// SPDX-License-Identifier: Apache-2.0
#include "nn/feed_forward.h"

#include <torch/nn/modules/container/modulelist.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "nn/linear.h"
#include "nn/token_by_token.h"
#include "nn/unset_weights.h"

namespace memlayers {
namespace {

// Of a row of logits its greatest number, the first of equal ones, and that one's softmax: by the
// row alone, where functions over tensors may round otherwise at their ends.
void choose(const at::Tensor& logits, at::Tensor& expert, at::Tensor& weight) {
  const std::int64_t T = logits.size(0), E = logits.size(1);
  const auto* row = logits.const_data_ptr<float>();
  auto* chosen = expert.mutable_data_ptr<std::int64_t>();
  auto* probability = weight.mutable_data_ptr<float>();
  for (std::int64_t t = 0; t < T; ++t, row += E) {
    const float* best = std::max_element(row, row + E);
    float sum = 0;
    for (std::int64_t e = 0; e < E; ++e) sum += std::exp(row[e] - *best);
    chosen[t] = best - row;
    probability[t] = 1 / sum;
  }
}

}  // namespace

FeedForwardImpl::FeedForwardImpl(const ModelConfig& config) {
  const bool bias = config.mlp_bias;
  gate_proj = register_module("gate_proj", nn::drawn_linear(config.dim, config.ff_dim, bias));
  up_proj = register_module("up_proj", nn::drawn_linear(config.dim, config.ff_dim, bias));
  down_proj = register_module("down_proj", nn::drawn_linear(config.ff_dim, config.dim, bias));
}

at::Tensor FeedForwardImpl::forward(const at::Tensor& x) {
  return down_proj(nn::swiglu(gate_proj(x), up_proj(x)));
}

ExpertsImpl::ExpertsImpl(const ModelConfig& config) {
  router = register_module("gate", nn::drawn_linear(config.dim, config.experts, /*bias=*/false));
  torch::nn::ModuleList list;
  for (std::int64_t i = 0; i < config.experts; ++i) {
    experts.emplace_back(config);
    list->push_back(experts.back());
  }
  register_module("experts", list);
}

ExpertsImpl::Routes ExpertsImpl::route(const at::Tensor& x) {
  const at::Tensor logits = router(x).to(torch::kFloat).contiguous();
  if (nn::is_token_by_token(x)) {
    at::Tensor expert = torch::empty({x.size(0)}, torch::kLong),
               weight = torch::empty({x.size(0), 1});
    choose(logits, expert, weight);
    return {expert, weight.to(x.scalar_type())};
  }
  const at::Tensor probabilities = torch::softmax(logits, -1);
  const at::Tensor expert = logits.argmax(-1);
  if (torch::GradMode::is_enabled() && is_training() && x.size(0) > 0) {
    const at::Tensor share = torch::bincount(expert, {}, logits.size(1)).to(torch::kFloat) /
                             static_cast<double>(x.size(0));
    balance_ = (share * probabilities.mean(0)).sum() * static_cast<double>(logits.size(1));
  }
  return {expert, probabilities.gather(1, expert.unsqueeze(1)).to(x.scalar_type())};
}

at::Tensor ExpertsImpl::forward(const at::Tensor& x) {
  const at::Tensor flat = x.dim() == 2 ? x : x.reshape({-1, x.size(-1)});
  const Routes routes = route(flat);
  // Tokens of one expert side by side, each expert's in their order.
  const at::Tensor order = routes.expert.argsort(/*stable=*/true, 0, /*descending=*/false);
  const at::Tensor sorted = flat.index_select(0, order);
  const at::Tensor counts =
      torch::bincount(routes.expert, {}, router->options.out_features()).to(torch::kCPU);
  const auto* count = counts.const_data_ptr<std::int64_t>();
  const bool has_gradient = torch::GradMode::is_enabled();
  std::vector<at::Tensor> parts;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    const std::int64_t end = begin + count[i];
    // Also of none, where gradients are wanted: then they are zero, in whichever process.
    if (end > begin || has_gradient) {
      parts.push_back(experts[i]->forward(sorted.slice(0, begin, end)));
    }
    begin = end;
  }
  const at::Tensor back = order.argsort(/*stable=*/true, 0, /*descending=*/false);
  at::Tensor y = parts.empty() ? flat : torch::cat(parts).index_select(0, back);
  y = nn::times(y, routes.weight);
  return x.dim() == 2 ? y : y.view(x.sizes());
}

at::Tensor ExpertsImpl::take_balance() { return std::exchange(balance_, at::Tensor()); }

}  // namespace memlayers

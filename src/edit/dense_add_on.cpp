// SPDX-License-Identifier: Apache-2.0
#include "edit/dense_add_on.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "nn/linear.h"
#include "nn/token_by_token.h"

namespace memlayers::edit {
namespace {

// Where tokens are worked on one by one, by each number alone.
at::Tensor activated(const at::Tensor& x) {
  return nn::is_token_by_token(x) ? nn::swiglu(x, torch::ones_like(x)) : torch::silu(x);
}

double memory_layers(const ModelConfig& config) {
  return static_cast<double>(config.memory_layers().size());
}

std::int64_t rounded(double width) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::llround(width)));
}

}  // namespace

DenseAddOn::DenseAddOn(Llama& model, std::int64_t width, double lr, std::uint64_t seed)
    : model_(model), lr_(lr) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  const std::int64_t dim = model->config().dim;
  const double deviation = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (const auto& [number, layer] : model->memory_layers()) {
    const at::Tensor in = torch::randn({width, dim}, random).mul_(deviation);
    const at::Tensor out = torch::zeros({dim, width});
    blocks_.push_back({layer.get(), in.set_requires_grad(true), out.set_requires_grad(true)});
    weights.emplace_back(std::to_string(number) + ".in", in);
    weights.emplace_back(std::to_string(number) + ".out", out);
  }
  optimizer_ =
      std::make_unique<DenseAdamW>(weights, DenseAdamW::Options{.beta2 = 0.999, .weight_decay = 0});
  attach();
}

at::Tensor DenseAddOn::given(const MemoryLayerImpl& layer, const at::Tensor& x,
                             const at::Tensor& y) const {
  const auto block = std::ranges::find(blocks_, &layer, &Block::layer);
  if (block == blocks_.end()) return y;  // another model's
  const at::Tensor inner = activated(nn::project(x.to(torch::kFloat), ops::Weights(block->in)));
  const at::Tensor added = nn::project(inner, ops::Weights(block->out)) * layer.output_scale;
  return y + added.to(y.scalar_type());
}

std::vector<at::Tensor> DenseAddOn::trained() const {
  std::vector<at::Tensor> all;
  for (const Block& block : blocks_) {
    all.push_back(block.in);
    all.push_back(block.out);
  }
  return all;
}

void DenseAddOn::show(bool before) {
  hook_.reset();
  if (!before) attach();
}

void DenseAddOn::attach() {
  hook_.emplace([this](const MemoryLayerImpl& layer, const at::Tensor& x, const at::Tensor& y) {
    return given(layer, x, y);
  });
}

void DenseAddOn::step(double rate) {
  optimizer_->step(rate * lr_);
  optimizer_->zero_grad();
}

std::int64_t width_of_equal_flops(const ModelConfig& config) {
  const double of_a_layer = count_flops(config, /*context=*/1).memory / memory_layers(config);
  return rounded(of_a_layer / (2 * 2 * static_cast<double>(config.dim)));
}

std::int64_t width_of_parameters(const ModelConfig& config, std::int64_t parameters) {
  const double of_a_layer = static_cast<double>(parameters) / memory_layers(config);
  return rounded(of_a_layer / (2 * static_cast<double>(config.dim)));
}

}  // namespace memlayers::edit

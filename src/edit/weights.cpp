// SPDX-License-Identifier: Apache-2.0
#include "edit/weights.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <numeric>

namespace memlayers::edit {
namespace {

constexpr double kScale = 2;  // of B A; LoRA's alpha / rank

torch::optim::AdamWOptions adamw(double lr) {
  return torch::optim::AdamWOptions(lr).weight_decay(0);
}

void set_rate(torch::optim::AdamW& optimizer, double lr) {
  for (auto& group : optimizer.param_groups()) group.options().set_lr(lr);
}

std::vector<at::Tensor> dense_weights(Llama& model) {
  std::vector<at::Tensor> weights;
  for (const auto& [name, weight] : model->dense_parameters()) {
    if (weight.requires_grad()) weights.push_back(weight);  // all but frozen sub-keys
  }
  return weights;
}

std::vector<at::Tensor> copies_of(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& tensor : tensors) copies.push_back(tensor.detach().clone());
  return copies;
}

std::vector<at::Tensor> float_copies_of(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> copies;
  for (const at::Tensor& copy : copies_of(tensors)) copies.push_back(copy.to(torch::kFloat));
  return copies;
}

std::vector<std::int64_t> all_slots(const MemoryPool& pool) {
  std::vector<std::int64_t> slots(static_cast<std::size_t>(pool->slots()));
  std::iota(slots.begin(), slots.end(), 0);
  return slots;
}

}  // namespace

AllWeights::AllWeights(Llama& model, double lr)
    : lr_(lr),
      weights_(dense_weights(model)),
      before_(copies_of(weights_)),
      masters_(float_copies_of(weights_)),
      optimizer_(masters_, adamw(lr)) {
  const MemoryPool pool = model->pool();
  if (pool.is_empty()) return;
  rows_ = std::make_unique<ChosenRows>(pool, all_slots(pool), PoolOptimizer::kAdamW, lr);
}

std::vector<at::Tensor> AllWeights::trained() const {
  std::vector<at::Tensor> all = weights_;
  if (rows_) {
    for (const at::Tensor& rows : rows_->trained()) all.push_back(rows);
  }
  return all;
}

void AllWeights::show(bool before) {
  const torch::NoGradGuard no_gradient;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    weights_[i].copy_(before ? before_[i] : masters_[i]);
  }
  if (rows_) rows_->show(before);
}

void AllWeights::step(double rate) {
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    masters_[i].mutable_grad() = weights_[i].grad().to(torch::kFloat);
    weights_[i].mutable_grad().reset();
  }
  set_rate(optimizer_, rate * lr_);
  optimizer_.step();
  if (rows_) rows_->step(rate);
  show(false);
}

std::vector<at::Tensor> AllWeights::learned() const {
  std::vector<at::Tensor> all = masters_;
  if (rows_) {
    for (const at::Tensor& rows : rows_->learned()) all.push_back(rows);
  }
  return all;
}

std::int64_t AllWeights::parameters() const {
  std::int64_t sum = rows_ ? rows_->parameters() : 0;
  for (const at::Tensor& weight : weights_) sum += weight.numel();
  return sum;
}

LowRank::LowRank(Llama& model, std::int64_t rank, double lr, std::uint64_t seed) : lr_(lr) {
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(seed);
  std::vector<at::Tensor> parameters;
  for (const auto& [name, weight] : model->dense_parameters()) {
    if (weight.dim() != 2 || !name.ends_with("proj.weight")) continue;
    const auto options = weight.options().dtype(torch::kFloat).requires_grad(false);
    const double deviation = 1 / std::sqrt(static_cast<double>(weight.size(1)));
    adapters_.push_back({.weight = weight,
                         .before = weight.detach().clone(),
                         .a = torch::randn({rank, weight.size(1)}, random, options).mul_(deviation),
                         .b = torch::zeros({weight.size(0), rank}, options)});
    parameters.push_back(adapters_.back().a);
    parameters.push_back(adapters_.back().b);
  }
  optimizer_ = std::make_unique<torch::optim::AdamW>(parameters, adamw(lr));
}

std::vector<at::Tensor> LowRank::trained() const {
  std::vector<at::Tensor> weights;
  for (const Adapter& adapter : adapters_) weights.push_back(adapter.weight);
  return weights;
}

void LowRank::show(bool before) {
  const torch::NoGradGuard no_gradient;
  for (Adapter& adapter : adapters_) {
    adapter.weight.copy_(before ? adapter.before
                                : adapter.before + kScale * adapter.b.mm(adapter.a));
  }
}

void LowRank::step(double rate) {
  const torch::NoGradGuard no_gradient;
  for (Adapter& adapter : adapters_) {
    const at::Tensor gradient = adapter.weight.grad().to(torch::kFloat);
    adapter.a.mutable_grad() = kScale * adapter.b.t().mm(gradient);
    adapter.b.mutable_grad() = kScale * gradient.mm(adapter.a.t());
    adapter.weight.mutable_grad().reset();
  }
  set_rate(*optimizer_, rate * lr_);
  optimizer_->step();
  show(false);
}

std::vector<at::Tensor> LowRank::learned() const {
  std::vector<at::Tensor> all;
  for (const Adapter& adapter : adapters_) {
    all.push_back(adapter.a);
    all.push_back(adapter.b);
  }
  return all;
}

}  // namespace memlayers::edit

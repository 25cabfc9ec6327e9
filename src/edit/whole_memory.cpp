// SPDX-License-Identifier: Apache-2.0
#include "edit/whole_memory.h"

#include <torch/types.h>

#include <utility>

namespace memlayers::edit {
namespace {

std::vector<std::pair<std::string, at::Tensor>> memory_weights(const Llama& model) {
  std::vector<std::pair<std::string, at::Tensor>> found;
  for (auto& [name, weight] : model->dense_parameters()) {
    // All but frozen sub-keys.
    const bool is_trained = name.find(".memory.") != std::string::npos && weight.requires_grad();
    if (is_trained) found.emplace_back(name, weight);
  }
  return found;
}

}  // namespace

WholeMemory::WholeMemory(Llama& model, double row_lr, double dense_lr)
    : model_(model),
      row_lr_(row_lr),
      dense_lr_(dense_lr),
      weights_(memory_weights(model)),
      optimizer_(weights_, {.weight_decay = 0}),
      rows_(model->pool(), {.beta2 = 0.99}) {
  for (const auto& [number, layer] : model->memory_layers()) scales_.push_back(layer->output_scale);
}

std::vector<at::Tensor> WholeMemory::trained() const {
  std::vector<at::Tensor> all;
  for (const auto& [name, weight] : weights_) all.push_back(weight);
  all.push_back(model_->pool()->values);
  return all;
}

void WholeMemory::show(bool before) {
  const auto layers = model_->memory_layers();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    MemoryLayer(layers[i].second)->output_scale = before ? 0 : scales_[i];
  }
}

void WholeMemory::step(double rate) {
  optimizer_.step(rate * dense_lr_, 1.0);
  optimizer_.zero_grad();
  rows_.step(rate * row_lr_);
}

std::vector<at::Tensor> WholeMemory::learned() const {
  std::vector<at::Tensor> all = trained();
  for (const auto& [name, tensor] : optimizer_.state()) {
    if (name.starts_with("master.")) all.push_back(tensor);
  }
  return all;
}

std::int64_t WholeMemory::parameters() const {
  std::int64_t sum = 0;
  for (const at::Tensor& tensor : trained()) sum += tensor.numel();
  return sum;
}

}  // namespace memlayers::edit

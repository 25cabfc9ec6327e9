// SPDX-License-Identifier: Apache-2.0
// Decoding reads copies of the sub-keys. Whatever has changed the weights since they were made,
// torch's optimizers that do not say so included, what is decoded is what new copies give.
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adagrad.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <gtest/gtest.h>
#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/types.h>

#include <algorithm>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "memlayers/llama.h"
#include "memlayers/memory_layer.h"
#include "memlayers/optimizer.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

constexpr double kRate = 0.3;

using Tensors = std::vector<at::Tensor>;

Tensors gradients_of(const Tensors& parameters) {
  Tensors gradients;
  for (const at::Tensor& parameter : parameters) gradients.push_back(parameter.grad());
  return gradients;
}

Tensors zeros_like(const Tensors& parameters) {
  Tensors zeros;
  for (const at::Tensor& parameter : parameters) zeros.push_back(torch::zeros_like(parameter));
  return zeros;
}

Tensors first_step(const Tensors& parameters) {
  return Tensors(parameters.size(), torch::ones({}));
}

template <class Optimizer>
void step(Tensors& parameters) {
  Optimizer(parameters, kRate).step();
}

// Each changes parameters, which have gradients.
struct Way {
  const char* name;
  std::function<void(Tensors&)> change;
};

std::vector<Way> ways() {
  return {
      {"SGD", step<torch::optim::SGD>},
      {"Adam", step<torch::optim::Adam>},
      {"AdamW", step<torch::optim::AdamW>},
      {"Adagrad", step<torch::optim::Adagrad>},
      {"RMSprop", step<torch::optim::RMSprop>},
      {"fused SGD",
       [](Tensors& p) {
         at::_fused_sgd_(p, gradients_of(p), zeros_like(p), 0, 0.9, kRate, 0, false, false, true);
       }},
      {"fused Adam",
       [](Tensors& p) {
         at::_fused_adam_(p, gradients_of(p), zeros_like(p), zeros_like(p), {}, first_step(p),
                          kRate, 0.9, 0.95, 0, 1e-8, false, false);
       }},
      {"fused AdamW",
       [](Tensors& p) {
         at::_fused_adamw_(p, gradients_of(p), zeros_like(p), zeros_like(p), {}, first_step(p),
                           kRate, 0.9, 0.95, 0.1, 1e-8, false, false);
       }},
      {"fused Adagrad",
       [](Tensors& p) {
         at::_fused_adagrad_(p, gradients_of(p), zeros_like(p), first_step(p), kRate, 0, 0, 1e-8,
                             false);
       }},
      {"foreach", [](Tensors& p) { at::_foreach_add_(p, gradients_of(p), kRate); }},
      {"DenseAdamW",
       [](Tensors& p) {
         std::vector<std::pair<std::string, at::Tensor>> named;
         for (const at::Tensor& parameter : p)
           named.emplace_back(std::to_string(named.size()), parameter);
         DenseAdamW(named, {}).step(kRate);
       }},
      {"data",
       [](Tensors& p) {
         for (at::Tensor& parameter : p) parameter.data().add_(parameter.grad(), kRate);
       }},
      {"one number of the data", [](Tensors& p) { p[0].data().view(-1)[1].add_(100); }},
      {"set_data",
       [](Tensors& p) {
         for (at::Tensor& parameter : p) {
           parameter.set_data(parameter.detach() + kRate * parameter.grad());
         }
       }},
      {"set_data of the same memory",
       [](Tensors& p) {
         for (at::Tensor& parameter : p) {
           at::Tensor same = parameter.data();
           same.mul_(parameter.grad());
           parameter.set_data(same);
         }
       }},
      {"memory",
       [](Tensors& p) {
         for (at::Tensor& parameter : p) {
           const at::Tensor gradient = parameter.grad().contiguous();
           std::copy_n(gradient.const_data_ptr<float>(), gradient.numel(),
                       static_cast<float*>(parameter.data_ptr()));
         }
       }},
  };
}

constexpr std::int64_t kDim = 12;

MemoryConfig config_of(bool qk_norm) {
  MemoryConfig config;
  config.n_keys = 9;
  config.heads = 2;
  config.knn = 4;
  config.k_dim = 6;
  config.qk_norm = qk_norm;
  return config;
}

// The sub-keys first.
Tensors parameters_of(MemoryLayer& layer) {
  Tensors parameters{layer->keys};
  if (layer->key_norm.defined()) parameters.push_back(layer->key_norm);
  for (const auto& named : layer->named_parameters()) {
    const bool is_there = named.key() == "keys" || named.key() == "key_norm";
    if (!is_there && !named.key().starts_with("pool.")) parameters.push_back(named.value());
  }
  return parameters;
}

at::Tensor decoded(MemoryLayer& layer, const at::Tensor& x) {
  const torch::NoGradGuard no_grad;
  Tensors tokens;
  for (std::int64_t t = 0; t < x.size(0); ++t) tokens.push_back(layer->forward(x.narrow(0, t, 1)));
  return torch::cat(tokens);
}

TEST(ChangedWeights, AreDecodedWhateverHasChangedThem) {
  torch::manual_seed(1);
  for (const bool qk_norm : {false, true}) {
    const MemoryConfig config = config_of(qk_norm);
    for (const Way& way : ways()) {
      MemoryPool pool(PoolOptions{.n_keys = config.n_keys, .width = kDim, .seed = 3});
      MemoryLayer layer(kDim, config, pool), other(kDim, config, pool);
      layer->eval();
      const at::Tensor x = torch::randn({20, kDim});
      const at::Tensor before = decoded(layer, x);
      Tensors parameters = parameters_of(layer);
      for (at::Tensor& p : parameters) p.mutable_grad() = torch::randn_like(p);
      {
        const torch::NoGradGuard no_grad;
        way.change(parameters);
      }
      const at::Tensor after = decoded(layer, x);
      {
        const torch::NoGradGuard no_grad;
        const Tensors copies = parameters_of(other);
        for (std::size_t i = 0; i < copies.size(); ++i) copies[i].copy_(parameters[i]);
      }
      EXPECT_TRUE(torch::equal(after, decoded(other, x))) << way.name << ", qk_norm " << qk_norm;
      EXPECT_FALSE(torch::equal(after, before)) << way.name;
    }
  }
}

TEST(ChangedWeights, AreDecodedAfterTheStateOfAModuleIsLoaded) {
  torch::manual_seed(2);
  const MemoryConfig config = config_of(true);
  MemoryPool pool(PoolOptions{.n_keys = config.n_keys, .width = kDim, .seed = 3});
  MemoryLayer layer(kDim, config, pool), other(kDim, config, pool);
  const at::Tensor x = torch::randn({20, kDim});
  decoded(layer, x);
  std::stringstream file;
  torch::save(other, file);
  torch::load(layer, file);
  EXPECT_TRUE(torch::equal(decoded(layer, x), decoded(other, x)));
}

// What comes behind a prompt of so many tokens.
std::vector<std::int32_t> continued(Llama& model, std::int32_t prompt) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t token = 0; token < prompt; ++token) tokens.push_back(7 + token);
  GenerateOptions options;
  options.max_tokens = 20;
  options.ignore_eos = true;
  return Generator(model, testing::tiny_tokenizer()).generate_tokens({tokens}, options)[0];
}

TEST(ChangedWeights, AreDecodedByAModelFromTheNextSequenceOn) {
  for (const bool qk_norm : {false, true}) {
    for (const std::int32_t prompt : {1, 9}) {
      ModelConfig config = testing::tiny_model_config();
      config.memory->qk_norm = qk_norm;
      Llama model = testing::tiny_generator(config).model();
      Llama other(config);
      DenseAdamW optimizer(model->dense_parameters(), {});
      for (int round = 0; round < 3; ++round) {
        continued(model, prompt);
        const at::Tensor tokens = torch::arange(40, 70, torch::kLong).view({1, -1});
        optimizer.zero_grad();
        model->forward(tokens).square().mean().backward();
        optimizer.step(0.1);
        const std::vector<std::int32_t> after = continued(model, prompt);
        {
          const torch::NoGradGuard no_grad;
          const auto from = model->dense_parameters();
          auto to = other->dense_parameters();
          for (std::size_t i = 0; i < to.size(); ++i) to[i].second.copy_(from[i].second);
        }
        EXPECT_EQ(after, continued(other, prompt))
            << "prompt " << prompt << ", qk_norm " << qk_norm << ", round " << round;
      }
    }
  }
}

}  // namespace
}  // namespace memlayers

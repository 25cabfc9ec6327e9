// SPDX-License-Identifier: Apache-2.0
// A choice among several feed-forwards: against a plain loop over tokens, in steps, in a folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "nn/feed_forward.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "train/training_step.h"

namespace memlayers {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::read_file;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;
using ::testing::HasSubstr;

ModelConfig small_config() {
  ModelConfig config;
  config.dim = 32;
  config.layers = 2;
  config.heads = 4;
  config.ff_dim = 24;
  config.experts = 5;
  config.vocab_size = 50;
  config.context = 64;
  return config;
}

// Weights so large that tokens differ in what they choose.
Experts drawn_experts(int seed, std::int64_t count = 5) {
  torch::manual_seed(seed);
  ModelConfig config = small_config();
  config.experts = count;
  Experts experts(config);
  const torch::NoGradGuard no_grad;
  for (at::Tensor& weight : experts->parameters()) weight.mul_(10);
  return experts;
}

// The same, a token at a time.
at::Tensor plain_experts(Experts& experts, const at::Tensor& x) {
  std::vector<at::Tensor> rows;
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    const at::Tensor token = x.slice(0, t, t + 1);
    const at::Tensor p = torch::softmax(torch::linear(token, experts->router->weight), -1);
    FeedForward& expert =
        experts->experts[static_cast<std::size_t>(p.argmax().item<std::int64_t>())];
    const at::Tensor inner = torch::silu(torch::linear(token, expert->gate_proj->weight)) *
                             torch::linear(token, expert->up_proj->weight);
    rows.push_back(torch::linear(inner, expert->down_proj->weight) * p.max());
  }
  return torch::cat(rows);
}

TEST(Experts, GiveWhatALoopOverTokensGives) {
  for (const std::int64_t count : {1, 2, 5}) {
    Experts experts = drawn_experts(1, count);
    for (const std::int64_t T : {1, 3, 40}) {
      const at::Tensor x = torch::randn({T, 32});
      const at::Tensor wanted = plain_experts(experts, x);
      EXPECT_LE((experts->forward(x) - wanted).abs().max().item<double>(), 1e-4);
      const torch::NoGradGuard no_grad;
      EXPECT_LE((experts->forward(x) - wanted).abs().max().item<double>(), 1e-4);
    }
  }
}

TEST(Experts, HaveTheGradientsOfALoopOverTokens) {
  const auto gradients = [](bool is_plain) {
    Experts experts = drawn_experts(2);
    const at::Tensor x = torch::randn({30, 32}).requires_grad_();
    const at::Tensor y = is_plain ? plain_experts(experts, x) : experts->forward(x);
    (y * torch::arange(30 * 32).view({30, 32}).sin()).sum().backward();
    std::vector<at::Tensor> all{x.grad()};
    for (const at::Tensor& weight : experts->parameters()) {
      all.push_back(weight.grad().defined() ? weight.grad() : torch::zeros_like(weight));
    }
    return all;
  };
  const std::vector<at::Tensor> wanted = gradients(true), got = gradients(false);
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_LE((got[i] - wanted[i]).abs().max().item<double>(),
              1e-4 * (1 + wanted[i].abs().max().item<double>()));
  }
}

TEST(Experts, ThatNoTokenTookHaveAGradientOfZero) {
  Experts experts = drawn_experts(3);
  experts->forward(torch::randn({1, 32})).sum().backward();
  std::int64_t zero = 0;
  for (FeedForward& expert : experts->experts) {
    ASSERT_TRUE(expert->up_proj->weight.grad().defined());
    zero += expert->up_proj->weight.grad().count_nonzero().item<std::int64_t>() == 0;
  }
  EXPECT_EQ(zero, 4);
}

TEST(Experts, SayOnceHowUnevenlyTheyWereChosen) {
  Experts experts = drawn_experts(4);
  const at::Tensor x = torch::randn({40, 32});
  experts->forward(x);
  const at::Tensor p = torch::softmax(experts->router(x), -1);
  const at::Tensor chosen = p.argmax(-1);
  double wanted = 0;
  for (std::int64_t e = 0; e < 5; ++e) {
    wanted += 5 * (chosen == e).to(torch::kFloat).mean().item<double>() *
              p.select(1, e).mean().item<double>();
  }
  const at::Tensor balance = experts->take_balance();
  ASSERT_TRUE(balance.defined());
  EXPECT_NEAR(balance.item<double>(), wanted, 1e-5);
  EXPECT_TRUE(balance.requires_grad());
  EXPECT_FALSE(experts->take_balance().defined());
  experts->eval();
  experts->forward(x);
  EXPECT_FALSE(experts->take_balance().defined());
  experts->train();
  const torch::NoGradGuard no_grad;
  experts->forward(x);
  EXPECT_FALSE(experts->take_balance().defined());
}

Llama drawn_model(const ModelConfig& config = small_config()) {
  torch::manual_seed(5);
  Llama model(config);
  const torch::NoGradGuard no_grad;
  for (auto& [name, weight] : model->dense_parameters()) {
    if (weight.dim() == 2) weight.mul_(8);
  }
  return model;
}

TEST(Experts, ATokenHasTheSameBitsHoweverASequenceIsCutIntoSteps) {
  for (const DenseType type : {DenseType::kFloat32, DenseType::kBFloat16}) {
    ModelConfig config = small_config();
    config.dtype = type;
    Llama model = drawn_model(config);
    std::vector<std::int32_t> tokens, beside;
    for (int i = 0; i < 40; ++i) {
      tokens.push_back(3 + 7 * i % 47);
      beside.push_back(3 + 11 * i % 47);
    }
    const auto hidden = [&](std::initializer_list<std::size_t> counts, bool is_alone) {
      KvCache cache(*model, 40), other(*model, 64);
      std::vector<at::Tensor> parts;
      std::size_t begin = 0;
      for (const std::size_t count : counts) {
        std::vector<SequenceTokens> next{{&cache, std::span(tokens).subspan(begin, count)}};
        if (!is_alone) next.insert(next.begin(), {&other, std::span(beside).first(7)});
        parts.push_back(model->step(next).slice(0, is_alone ? 0 : 7));
        begin += count;
      }
      return torch::cat(parts);
    };
    const at::Tensor whole = hidden({40}, true);
    EXPECT_TRUE(torch::equal(hidden({1, 2, 17, 1, 19}, true), whole));
    EXPECT_TRUE(torch::equal(hidden({20, 1, 19}, false), whole));
    if (type == DenseType::kBFloat16) continue;
    const torch::NoGradGuard no_grad;
    const at::Tensor ids = torch::tensor(tokens).to(torch::kLong).unsqueeze(0);
    EXPECT_LE((model->hidden_states(ids)[0] - whole).abs().max().item<double>(), 1e-3);
  }
}

TEST(Experts, AreSavedAndLoaded) {
  Llama model = drawn_model();
  const TempDir folder;
  save_model(model, folder.path());
  const auto config = nlohmann::json::parse(read_file(folder / "config.json"));
  EXPECT_EQ(config["memlayers"]["experts"], 5);
  EXPECT_EQ(config["model_type"], "memlayers");
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::arange(3, 19, torch::kLong).view({2, 8});
  EXPECT_TRUE(torch::equal(load_model(folder.path())->forward(tokens), model->forward(tokens)));
  EXPECT_TRUE(torch::equal(open_model(folder.path())->forward(tokens), model->forward(tokens)));
}

TEST(Experts, OfAnotherNumberThanTheFileHasAreNamed) {
  const TempDir folder;
  save_model(drawn_model(), folder.path());
  const std::string good = read_file(folder / "config.json");
  for (const std::int64_t experts : {1, 4, 6, 4096}) {
    auto config = nlohmann::json::parse(good);
    config["memlayers"]["experts"] = experts;
    write_file(folder / "config.json", config.dump());
    expect_error([&] { load_model(folder.path()); },
                 HasSubstr("memlayers.experts of config.json: expected 5, by the tensors that the "
                           "file has, got " +
                           std::to_string(experts)));
  }
}

TEST(Experts, WhatChoosesThemStaysAsItIsWhenWeightsArePacked) {
  Llama model = drawn_model();
  model->quantize_weights(RowType::kInt8);
  std::vector<std::string> left;
  for (const auto& [name, weight] : model->dense_parameters()) left.push_back(name);
  EXPECT_THAT(left, ::testing::Contains("model.layers.0.mlp.gate.weight"));
  EXPECT_THAT(left, ::testing::Not(::testing::Contains("model.embed_tokens.weight")));
  EXPECT_THAT(left,
              ::testing::Not(::testing::Contains("model.layers.0.mlp.experts.4.up_proj.weight")));
  const TempDir folder;
  save_model(model, folder.path());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::arange(3, 19, torch::kLong).view({2, 8});
  EXPECT_TRUE(torch::equal(load_model(folder.path())->forward(tokens), model->forward(tokens)));
}

TEST(Experts, CountTheFlopsOfOneAndOfTheChoice) {
  ModelConfig config = small_config();
  config.experts = 1;
  const double one = count_flops(config, 8).feed_forward;
  config.experts = 5;
  EXPECT_EQ(count_flops(config, 8).feed_forward, one + 2 * 2 * 32 * 5);
}

TEST(Experts, TheBalanceIsOfTheGradientAndNotOfTheLoss) {
  const auto step = [](double balance) {
    Llama model = drawn_model();
    DenseAdamW dense(model->dense_parameters(), {.eps = 1, .weight_decay = 0});
    text::Batch batch;
    batch.rows = 2;
    batch.length = 8;
    for (std::int64_t i = 0; i < 16; ++i) {
      batch.input.push_back(3 + i);
      batch.target.push_back(4 + i);
    }
    batch.tokens = batch.target_tokens = 16;
    std::vector<text::Batch> batches{batch};
    const train::StepOutcome outcome = train::train_step(
        model, dense, nullptr, batches,
        {.lr = 0.1, .value_lr = 0, .clip = {}, .value_clip = {}, .balance = balance});
    at::Tensor router;
    for (const auto& [name, weight] : model->dense_parameters()) {
      if (name == "model.layers.0.mlp.gate.weight") router = weight.detach().clone();
    }
    return std::pair(outcome.loss, router);
  };
  const auto without = step(0), with = step(10);
  EXPECT_EQ(without.first, with.first);
  EXPECT_FALSE(torch::equal(without.second, with.second));
}

}  // namespace
}  // namespace memlayers

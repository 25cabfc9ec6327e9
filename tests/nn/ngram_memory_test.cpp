// SPDX-License-Identifier: Apache-2.0
// A memory that is read by hashes of the last tokens: against plain ATen, in steps, in a folder.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <set>
#include <span>
#include <vector>

#include "memlayers/grow.h"
#include "memlayers/llama.h"
#include "memlayers/ops.h"
#include "memlayers/slots.h"
#include "nn/ngrams.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using memlayers::testing::TempDir;

MemoryConfig ngram_memory() {
  return {.layers = std::vector<std::int64_t>{1},
          .n_keys = 16,
          .heads = 3,
          .knn = 2,
          .v_dim = 20,
          .variant = MemoryVariant::kNgram};
}

ModelConfig small_config() {
  ModelConfig config;
  config.dim = 24;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.ff_dim = 40;
  config.vocab_size = 50;
  config.context = 200;
  config.memory = ngram_memory();
  config.memory->layers = std::vector<std::int64_t>{0, 2};
  return config;
}

// docs/formats.md, word for word.
std::int64_t slot_of(const std::vector<std::int64_t>& ids, std::uint64_t layer, std::uint64_t head,
                     std::uint64_t slots) {
  __extension__ using Wide = unsigned __int128;
  const auto f = [](std::uint64_t x) {
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31U);
  };
  const std::uint64_t s = f(f(f(layer) ^ head) ^ ids.size());
  std::uint64_t m = f(s);
  std::uint64_t sum = m;
  for (const std::int64_t id : ids) {
    m = f(m) | 1U;
    sum += m * static_cast<std::uint64_t>(id + 1);
  }
  return static_cast<std::int64_t>(static_cast<Wide>(sum) * slots >> 64U);
}

TEST(Ngrams, HaveTheSlotsOfTheirDescription) {
  for (const std::uint64_t slots : {1ULL, 256ULL, 1000003ULL, 1ULL << 40U, 1ULL << 60U}) {
    for (std::int64_t i = 0; i < 50; ++i) {
      const std::vector<std::int64_t> ids{i * i, (i * 7919) % 32000, nn::kNoToken};
      EXPECT_EQ(nn::ngram_slot(ids, i, i % 4, static_cast<std::int64_t>(slots)),
                slot_of(ids, i, i % 4, slots));
    }
  }
  EXPECT_EQ(nn::ngram_slot(std::vector<std::int64_t>{7, 5}, 3, 1, 4096), 1151);
}

TEST(Ngrams, SpreadOverTheSlotsAsRandomOnesDo) {
  std::set<std::int64_t> found;
  for (std::int64_t i = 0; i < 4096; ++i) {
    found.insert(nn::ngram_slot(std::vector<std::int64_t>{i % 64, i / 64}, 0, 0, 4096));
  }
  EXPECT_NEAR(static_cast<double>(found.size()), 4096 * (1 - std::exp(-1)), 200);
}

TEST(Ngrams, AreThoseOfADocumentAlone) {
  const at::Tensor tokens = torch::tensor({{3, 4, 5, 6}, {7, 8, 9, 10}}, torch::kLong);
  const at::Tensor whole = nn::suffixes_of(tokens, {}, 3);
  EXPECT_TRUE(torch::equal(whole, torch::tensor({{3, -1, -1},
                                                 {4, 3, -1},
                                                 {5, 4, 3},
                                                 {6, 5, 4},
                                                 {7, -1, -1},
                                                 {8, 7, -1},
                                                 {9, 8, 7},
                                                 {10, 9, 8}},
                                                torch::kLong)));
  const at::Tensor begin = torch::tensor({{0, 0, 2, 2}, {0, 0, 0, 3}}, torch::kLong);
  EXPECT_TRUE(torch::equal(nn::suffixes_of(tokens, begin, 3), torch::tensor({{3, -1, -1},
                                                                             {4, 3, -1},
                                                                             {5, -1, -1},
                                                                             {6, 5, -1},
                                                                             {7, -1, -1},
                                                                             {8, 7, -1},
                                                                             {9, 8, 7},
                                                                             {10, -1, -1}},
                                                                            torch::kLong)));
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& scale) {
  return x * torch::rsqrt(x.square().mean(-1, true) + 1e-6) * scale;
}

// The layer with plain ATen: rows [T, v_dim], differentiable in all but the slots.
at::Tensor plain_layer(MemoryLayer& layer, const at::Tensor& values, const at::Tensor& x,
                       const at::Tensor& suffixes) {
  const MemoryConfig& config = layer->config();
  const std::int64_t J = config.heads * config.knn;
  std::vector<at::Tensor> sums;
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    at::Tensor sum = torch::zeros({values.size(1)});
    for (std::int64_t head = 0; head < config.heads; ++head) {
      for (std::int64_t n = 2; n <= config.knn + 1; ++n) {
        std::vector<std::int64_t> ids;
        for (std::int64_t i = 0; i < n; ++i) ids.push_back(suffixes[t][i].item<std::int64_t>());
        sum = sum + values[slot_of(ids, layer->number, head, config.slots())];
      }
    }
    sums.push_back(sum / std::sqrt(static_cast<double>(J)));
  }
  const at::Tensor y = torch::stack(sums);
  const at::Tensor key =
      norm(torch::linear(y, layer->key_proj->weight, layer->key_proj->bias), layer->key_norm);
  const at::Tensor dots = (norm(x, layer->query_norm) * key).sum(-1, true);
  const at::Tensor gate = torch::sigmoid(dots / std::sqrt(static_cast<double>(x.size(1))));
  const at::Tensor out =
      layer->value_proj ? torch::linear(y, layer->value_proj->weight, layer->value_proj->bias) : y;
  return gate * out;
}

TEST(NgramMemory, IsThatOfPlainATenForwardAndBackward) {
  for (const bool projects : {true, false}) {
    torch::manual_seed(1);
    MemoryConfig config = ngram_memory();
    config.value_proj = projects;
    const std::int64_t dim = projects ? 24 : 20;
    MemoryPool pool(PoolOptions{.n_keys = 16, .width = 20, .seed = 3});
    MemoryLayer layer(dim, config, pool);
    layer->number = 5;
    {
      const torch::NoGradGuard no_grad;
      layer->query_norm.uniform_(0.5, 2);
      layer->key_norm.uniform_(0.5, 2);
    }
    const at::Tensor tokens = torch::randint(50, {2, 9}, torch::kLong);
    const at::Tensor suffixes = nn::suffixes_of(tokens, {}, 3);
    const at::Tensor x = torch::randn({18, dim}).requires_grad_();
    const at::Tensor values = pool->values.detach().clone().requires_grad_();
    const at::Tensor by = torch::randn({18, dim});
    const at::Tensor wanted = plain_layer(layer, values, x, suffixes);
    (wanted * by).sum().backward();
    std::vector<at::Tensor> gradients{x.grad().clone()};
    for (const auto& parameter : layer->named_parameters()) {
      if (parameter.key() == "pool.values") continue;
      gradients.push_back(parameter.value().grad().clone());
      parameter.value().mutable_grad().reset();
    }
    x.mutable_grad().reset();
    const at::Tensor got = layer->forward(x, nullptr, false, suffixes);
    EXPECT_LE((got - wanted).abs().max().item<double>(), 1e-5);
    (got * by).sum().backward();
    EXPECT_LE((x.grad() - gradients[0]).abs().max().item<double>(), 1e-5);
    std::size_t i = 1;
    for (const auto& parameter : layer->named_parameters()) {
      if (parameter.key() == "pool.values") continue;
      EXPECT_LE((parameter.value().grad() - gradients[i++]).abs().max().item<double>(), 1e-4)
          << parameter.key();
    }
    EXPECT_LE((pool->dense_gradient() - values.grad()).abs().max().item<double>(), 1e-5);
    const torch::NoGradGuard no_grad;  // and a token alone
    EXPECT_LE(
        (layer->forward(x[4].unsqueeze(0), nullptr, false, suffixes.slice(0, 4, 5)) - wanted[4])
            .abs()
            .max()
            .item<double>(),
        1e-5);
  }
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "";
}

TEST(NgramMemory, SaysWhatItWasNotGiven) {
  MemoryPool pool(PoolOptions{.n_keys = 16, .width = 20});
  MemoryLayer layer(24, ngram_memory(), pool);
  const at::Tensor x = torch::randn({4, 24});
  const auto told = [&](const at::Tensor& suffixes) {
    return error_of([&] { layer->forward(x, nullptr, false, suffixes); });
  };
  EXPECT_TRUE(testing::says(told({}), {"expected suffixes of 4 tokens", "got none"}));
  EXPECT_TRUE(testing::says(told(torch::zeros({3, 3}, torch::kLong)), {"of 4 tokens", "got 3"}));
  EXPECT_TRUE(testing::says(told(torch::zeros({4, 2}, torch::kLong)), {"[T, 3]", "[4, 2]"}));
  EXPECT_TRUE(testing::says(told(torch::zeros({4, 3})), {"type Long", "Float"}));
  EXPECT_TRUE(testing::says(error_of([&] { layer->select(x); }), {"select", "\"ngram\""}));
  SlotEditor editor(layer);
  EXPECT_TRUE(
      testing::says(error_of([&] { editor.insert(torch::ones({3, 128}), torch::ones({20})); }),
                    {"insert", "\"ngram\""}));
  Llama model(small_config());
  EXPECT_TRUE(testing::says(error_of([&] { grow(model, 20, 1); }), {"grow", "\"ngram\""}));
  EXPECT_TRUE(testing::says(error_of([&] { model->hidden_states_from(torch::zeros({1, 2, 24})); }),
                            {"tokens", "none"}));
  EXPECT_TRUE(testing::says(error_of([&] {
                              model->hidden_states_from(torch::zeros({1, 2, 24}),
                                                        torch::zeros({1, 3}, torch::kLong));
                            }),
                            {"expected tokens [1, 2]", "[1, 3]"}));
  EXPECT_TRUE(testing::says(error_of([&] {
                              model->hidden_states(torch::zeros({1, 3}, torch::kLong),
                                                   PackedSequences{2, {1}});
                            }),
                            {"\"ngram\"", "prefix", "2 tokens"}));
}

Llama drawn_model(const ModelConfig& config = small_config()) {
  torch::manual_seed(4);
  Llama model(config, 7);
  const torch::NoGradGuard no_grad;
  for (auto& [name, weight] : model->dense_parameters()) {
    if (weight.dim() == 2) weight.mul_(4);
  }
  return model;
}

std::vector<std::int32_t> some_ids(int count, int step) {
  std::vector<std::int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(3 + step * i % 47);
  return ids;
}

TEST(NgramMemory, ATokenHasTheSameBitsHoweverASequenceIsCutIntoSteps) {
  for (const DenseType type : {DenseType::kFloat32, DenseType::kBFloat16}) {
    ModelConfig config = small_config();
    config.dtype = type;
    Llama model = drawn_model(config);
    const std::vector<std::int32_t> tokens = some_ids(150, 7), beside = some_ids(100, 11);
    const auto hidden = [&](std::initializer_list<std::size_t> counts, bool is_alone) {
      KvCache cache(*model, 150), other(*model, 200);
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
    const at::Tensor whole = hidden({150}, true);
    EXPECT_TRUE(torch::equal(hidden({1, 1, 1, 2, 58, 1, 64, 22}, true), whole));
    EXPECT_TRUE(torch::equal(hidden({63, 1, 1, 85}, false), whole));
    if (type == DenseType::kBFloat16) continue;
    const torch::NoGradGuard no_grad;
    const at::Tensor ids = torch::tensor(tokens).to(torch::kLong).unsqueeze(0);
    EXPECT_LE((model->hidden_states(ids)[0] - whole).abs().max().item<double>(), 1e-3);
  }
}

TEST(NgramMemory, KeepsTheTokensItNeedsInPagesThatAreSharedAndCut) {
  Llama model = drawn_model();
  const std::vector<std::int32_t> tokens = some_ids(80, 7);
  const auto run = [&](KvCache& cache, std::size_t first, std::size_t count) {
    const std::vector<SequenceTokens> next{{&cache, std::span(tokens).subspan(first, count)}};
    return model->step(next);
  };
  KvCache whole(*model, 100);
  const at::Tensor wanted = run(whole, 0, 80);
  KvCache behind(*model, 100, {}, {whole.page(0)});
  EXPECT_TRUE(torch::equal(run(behind, 64, 16), wanted.slice(0, 64)));
  behind.cut(70);
  EXPECT_TRUE(torch::equal(run(behind, 70, 10), wanted.slice(0, 70)));
}

TEST(NgramMemory, TheTwoHalvesOfItsStatesAreTheWhole) {
  Llama model = drawn_model();
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::randint(3, 50, {2, 9}, torch::kLong);
  EXPECT_TRUE(torch::equal(model->hidden_states_from(model->states_before_memory(tokens), tokens),
                           model->hidden_states(tokens)));
}

TEST(NgramMemory, IsSavedAndLoaded) {
  Llama model = drawn_model();
  const TempDir folder;
  save_model(model, folder.path());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::randint(3, 50, {2, 9}, torch::kLong);
  EXPECT_TRUE(torch::equal(load_model(folder.path())->forward(tokens), model->forward(tokens)));
  EXPECT_TRUE(torch::equal(open_model(folder.path())->forward(tokens), model->forward(tokens)));
  EXPECT_TRUE(testing::says(testing::error_of([&] { grow_folder(folder.path(), 20, 1); }),
                            {"variant", "\"ngram\""}));
}

TEST(NgramMemory, CountsItsFlops) {
  ModelConfig config = small_config();
  const double J = 6, v = 20, dim = 24;
  EXPECT_EQ(count_flops(config, 1).memory, 2 * 2 * (J * v + v * dim + dim + v * dim));
}

}  // namespace
}  // namespace memlayers

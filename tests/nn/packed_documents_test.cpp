// SPDX-License-Identifier: Apache-2.0
// Documents that share a row are read as each of them alone.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <vector>

#include "memlayers/llama.h"
#include "nn/document_runs.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

ModelConfig config_of(std::int64_t kv_heads = 2) {
  ModelConfig config = testing::tiny_model_config();
  config.context = 700;
  config.kv_heads = kv_heads;
  return config;
}

struct Packed {
  at::Tensor tokens, targets, begin;  // [rows, length]
  std::vector<std::vector<std::int64_t>> lengths;
};

// Rows of documents of these lengths. The last token of each has no target.
Packed pack(const std::vector<std::vector<std::int64_t>>& lengths) {
  const auto rows = static_cast<std::int64_t>(lengths.size());
  std::int64_t length = 0;
  for (const std::int64_t one : lengths[0]) length += one;
  Packed packed{torch::randint(300, {rows, length}, torch::kLong),
                torch::full({rows, length}, kIgnoredTarget, torch::kLong),
                torch::zeros({rows, length}, torch::kLong), lengths};
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t at = 0;
    for (const std::int64_t one : lengths[row]) {
      packed.begin[row].narrow(0, at, one).fill_(at);
      packed.targets[row]
          .narrow(0, at, one - 1)
          .copy_(packed.tokens[row].narrow(0, at + 1, one - 1));
      at += one;
    }
    EXPECT_EQ(at, length);
  }
  return packed;
}

// Loss of each document alone, weighted by its targets, and its gradients.
void expect_as_alone(Llama& model, const Packed& packed) {
  const std::int64_t targets = (packed.targets != kIgnoredTarget).sum().item<std::int64_t>();
  const auto gradients = [&] {
    std::vector<at::Tensor> all{model->pool()->dense_gradient()};
    model->pool()->clear_gradient();
    for (auto& [name, parameter] : model->dense_parameters()) {
      all.push_back(parameter.grad().clone());
      parameter.mutable_grad().reset();
    }
    return all;
  };
  const at::Tensor together = model->hidden_states(packed.tokens, packed.begin);
  const at::Tensor loss = answer_loss(model, together, packed.targets);
  loss.backward();
  const std::vector<at::Tensor> got = gradients();

  double sum = 0;
  for (std::size_t row = 0; row < packed.lengths.size(); ++row) {
    std::int64_t at = 0;
    for (const std::int64_t one : packed.lengths[row]) {
      const auto part = [&](const at::Tensor& all) {
        return all[static_cast<std::int64_t>(row)].narrow(0, at, one).unsqueeze(0);
      };
      const at::Tensor alone = model->hidden_states(part(packed.tokens));
      EXPECT_LE((alone - part(together)).abs().max().item<double>(), 2e-5)
          << "row " << row << ", document of " << one << " from " << at;
      const double share = static_cast<double>(one - 1) / static_cast<double>(targets);
      const at::Tensor part_loss = answer_loss(model, alone, part(packed.targets)) * share;
      part_loss.backward();
      sum += part_loss.item<double>();
      at += one;
    }
  }
  EXPECT_NEAR(loss.item<double>(), sum, 1e-5);
  const std::vector<at::Tensor> wanted = gradients();
  for (std::size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(torch::allclose(got[i], wanted[i], 1e-3, 2e-5)) << "gradient " << i;
  }
}

TEST(PackedDocuments, HaveTheLossAndGradientsOfEachAlone) {
  torch::manual_seed(1);
  for (const std::int64_t kv_heads : {2, 1}) {
    Llama model(config_of(kv_heads));
    expect_as_alone(model, pack({{5, 1, 9, 2}, {17}, {1, 16}}));
    // Longer than what shares a run, before and behind shorter ones.
    expect_as_alone(model, pack({{300, 3, 200, 90, 7}, {100, 100, 100, 290, 10}}));
  }
}

TEST(PackedDocuments, DoNotSeeWhatStandsBeforeThem) {
  torch::manual_seed(2);
  Llama model(config_of());
  const torch::NoGradGuard no_grad;
  const Packed packed = pack({{20, 30}});
  at::Tensor others = packed.tokens.clone();
  others.narrow(1, 0, 20).fill_(7);
  const auto read = [&](const at::Tensor& tokens, const at::Tensor& begin) {
    return model->hidden_states(tokens, begin).narrow(1, 20, 30);
  };
  EXPECT_TRUE(torch::equal(read(packed.tokens, packed.begin), read(others, packed.begin)));
  EXPECT_FALSE(torch::equal(read(packed.tokens, {}), read(others, {})));
}

TEST(PackedDocuments, OneARowIsTheWayWithoutDocuments) {
  torch::manual_seed(3);
  Llama model(config_of());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::randint(300, {3, 40}, torch::kLong);
  EXPECT_TRUE(torch::equal(model->hidden_states(tokens, torch::zeros_like(tokens)),
                           model->hidden_states(tokens)));
}

TEST(PackedDocuments, RefuseColumnsThatAreNoBeginnings) {
  Llama model(config_of());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::ones({1, 4}, torch::kLong);
  const auto read = [&](std::vector<std::int64_t> begin) {
    model->hidden_states(tokens, torch::tensor(begin, torch::kLong).unsqueeze(0));
  };
  read({0, 0, 2, 2});
  EXPECT_THROW(read({0, 0, 1, 1}), c10::ValueError);  // begins in a column that is not its own
  EXPECT_THROW(read({1, 1, 1, 1}), c10::ValueError);
  EXPECT_THROW(read({0, 1, 0, 0}), c10::ValueError);
  EXPECT_THROW(read({0, -1, 2, 2}), c10::ValueError);
  EXPECT_THROW(read({0, 0, 0}), c10::ValueError);
}

// Sequences that begin alike, packed behind what they begin with, and each of them alone.
void expect_packed_as_alone(const ModelConfig& config, std::int64_t prefix,
                            const std::vector<std::int64_t>& lengths) {
  Llama model(config);
  PackedSequences packed{prefix, lengths};
  std::vector<at::Tensor> own;
  const at::Tensor beginning = torch::randint(300, {prefix}, torch::kLong);
  std::vector<at::Tensor> parts{beginning};
  for (const std::int64_t length : lengths) {
    parts.push_back(torch::randint(300, {length}, torch::kLong));
    own.push_back(torch::cat({beginning, parts.back()}).unsqueeze(0));
  }
  const at::Tensor tokens = torch::cat(parts).unsqueeze(0);
  const at::Tensor weights = torch::randn({config.dim});
  const auto gradients = [&] {
    std::vector<at::Tensor> all{model->pool()->dense_gradient()};
    model->pool()->clear_gradient();
    for (auto& [name, parameter] : model->dense_parameters()) {
      all.push_back(parameter.grad().defined() ? parameter.grad().clone() : at::Tensor());
      parameter.mutable_grad().reset();
    }
    return all;
  };
  const at::Tensor together = model->hidden_states(tokens, packed);
  {
    const torch::NoGradGuard no_grad;
    const at::Tensor states = model->states_before_memory(tokens, packed);
    EXPECT_TRUE(torch::equal(model->hidden_states_from(states, tokens, packed), together));
  }
  at::Tensor behind = together.slice(1, prefix);
  (behind * weights).sum().backward();
  const std::vector<at::Tensor> got = gradients();
  std::int64_t at = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const at::Tensor alone = model->hidden_states(own[i]);
    EXPECT_LE((alone.slice(1, prefix) - behind.narrow(1, at, lengths[i])).abs().max().item<float>(),
              2e-5)
        << "sequence " << i;
    EXPECT_LE((alone.slice(1, 0, prefix) - together.slice(1, 0, prefix)).abs().sum().item<float>(),
              prefix * 1e-3);
    (alone.slice(1, prefix) * weights).sum().backward();
    at += lengths[i];
  }
  const std::vector<at::Tensor> wanted = gradients();
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].defined(), wanted[i].defined());
    if (got[i].defined()) {
      EXPECT_TRUE(torch::allclose(got[i], wanted[i], 1e-3, 5e-4)) << "gradient " << i;
    }
  }
}

TEST(PackedSequences, AreWhatEachIsAlone) {
  torch::manual_seed(5);
  for (const std::int64_t prefix : {0, 1, 7}) {
    expect_packed_as_alone(config_of(), prefix, {5, 1, 9, 2});
    expect_packed_as_alone(config_of(1), prefix, {3, 280, 4});  // longer than what shares a run
  }
}

TEST(PackedSequences, SeeNoMoreThanAWindow) {
  torch::manual_seed(6);
  ModelConfig config = config_of();
  config.sliding_window = 6;
  for (const std::int64_t prefix : {0, 2, 9}) {
    expect_packed_as_alone(config, prefix, {5, 1, 12, 2});
  }
}

TEST(PackedSequences, RefuseLengthsThatAreNotThoseOfTheTokens) {
  Llama model(config_of());
  const torch::NoGradGuard no_grad;
  const at::Tensor tokens = torch::ones({1, 6}, torch::kLong);
  const auto read = [&](std::int64_t prefix, std::vector<std::int64_t> lengths) {
    model->hidden_states(tokens, PackedSequences{prefix, std::move(lengths)});
  };
  read(2, {1, 3});
  EXPECT_THROW(read(2, {1, 2}), c10::ValueError);
  EXPECT_THROW(read(2, {4, 0}), c10::ValueError);
  EXPECT_THROW(read(0, {7, -1}), c10::ValueError);
  EXPECT_THROW(model->hidden_states(torch::ones({2, 3}, torch::kLong), PackedSequences{0, {3}}),
               c10::ValueError);
}

TEST(DocumentRuns, JoinShortDocumentsAndLeaveLongOnesAlone) {
  const Packed packed = pack({{300, 3, 200, 90, 7}, {100, 100, 100, 290, 10}});
  const nn::DocumentRuns runs = nn::document_runs(packed.begin, torch::kFloat);
  EXPECT_EQ(runs.lengths, (std::vector<std::int64_t>{300, 203, 97, 200, 100, 290, 10}));
  const std::vector<bool> has_mask{false, true, true, true, false, false, false};
  for (std::size_t i = 0; i < has_mask.size(); ++i) {
    EXPECT_EQ(runs.masks[i].defined(), has_mask[i]) << i;
  }
}

}  // namespace
}  // namespace memlayers

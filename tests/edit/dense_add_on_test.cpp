// SPDX-License-Identifier: Apache-2.0
#include "edit/dense_add_on.h"

#include <gtest/gtest.h>

#include "edit/output_penalty.h"
#include "edit/teach.h"
#include "memlayers/retrofit.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

// A memory beside the feed-forward of two layers, its rows zero.
Generator retrofitted(DenseType type = DenseType::kFloat32) {
  ModelConfig config = testing::tiny_model_config();
  config.layers = 4;
  config.memory.reset();
  config.dtype = type;
  Generator plain = testing::tiny_generator(config);
  return retrofit(plain, {.layers = {{1, 3}}, .n_keys = 16, .heads = 2, .knn = 4, .k_dim = 8});
}

std::vector<NewFact> facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}},
          {.fact = {"the blue maple has", "the lantern"}}};
}

const char* const kText = "the red otter has number one hundred";

at::Tensor logits_of(Generator& generator) {
  const torch::NoGradGuard no_gradient;
  const std::vector<std::int32_t> tokens = generator.tokenizer().encode_prompt(kText);
  return generator.model()->forward(
      torch::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())).unsqueeze(0));
}

// The last hidden state, by steps of so many tokens.
at::Tensor decoded(Generator& generator, std::size_t at_once) {
  const std::vector<std::int32_t> tokens = generator.tokenizer().encode_prompt(kText);
  KvCache cache(*generator.model(), 40);
  at::Tensor hidden;
  for (std::size_t begin = 0; begin < tokens.size(); begin += at_once) {
    const std::size_t count = std::min(at_once, tokens.size() - begin);
    const SequenceTokens next{&cache, {tokens.data() + begin, count}};
    hidden = generator.model()->step({&next, 1});
  }
  return hidden[-1];
}

void fill(const edit::Student& student) {
  const torch::NoGradGuard no_gradient;
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(7);
  for (at::Tensor weight : student.trained()) weight.normal_(0, 0.3, random);
}

TEST(DenseAddOn, BeginsAsTheModelBitForBit) {
  for (const DenseType type : {DenseType::kFloat32, DenseType::kBFloat16}) {
    Generator generator = retrofitted(type);
    const at::Tensor before = logits_of(generator), step = decoded(generator, 1);
    {
      edit::DenseAddOn student(generator.model(), 6, 1e-3, 0);
      EXPECT_TRUE(torch::equal(logits_of(generator), before));
      EXPECT_TRUE(torch::equal(decoded(generator, 1), step));
      fill(student);
      EXPECT_FALSE(torch::equal(logits_of(generator), before));
      EXPECT_FALSE(torch::equal(decoded(generator, 1), step));
      student.show(true);
      EXPECT_TRUE(torch::equal(logits_of(generator), before));
      student.show(false);
      EXPECT_FALSE(torch::equal(logits_of(generator), before));
    }
    EXPECT_TRUE(torch::equal(logits_of(generator), before)) << "it is gone";
  }
}

TEST(DenseAddOn, LearnsAndIsTakenBackBitForBit) {
  Generator generator = retrofitted();
  std::vector<at::Tensor> weights;
  for (const at::Tensor& weight : generator.model()->parameters()) {
    weights.push_back(weight.detach().clone());
  }
  const at::Tensor before = logits_of(generator);
  edit::DenseAddOn student(generator.model(), 24, 1e-2, 0);
  const LearnOptions options{.steps = 300, .penalty = 1, .settle = 20};
  const LearnProgress end = edit::teach(generator, student, facts(), options, {});
  EXPECT_EQ(end.recalled, 3);
  for (const FactScore& fact :
       evaluate_facts(generator, {facts()[0].fact, facts()[1].fact}).facts) {
    EXPECT_TRUE(fact.is_recalled);  // all of the model says so too, not the kept lower half alone
  }
  const at::Tensor taught = logits_of(generator);
  EXPECT_FALSE(torch::equal(taught, before));
  student.show(true);
  EXPECT_TRUE(torch::equal(logits_of(generator), before));
  student.show(false);
  EXPECT_TRUE(torch::equal(logits_of(generator), taught));
  std::size_t i = 0;
  for (const at::Tensor& weight : generator.model()->parameters()) {
    EXPECT_TRUE(torch::equal(weight, weights[i++]));
  }
}

TEST(DenseAddOn, AddsAScaledBottleneckToWhatEachMemoryGives) {
  Generator generator = retrofitted();
  generator.model()->set_output_scales({3, 0.5});
  const torch::NoGradGuard no_gradient;
  generator.model()->pool()->values.normal_();
  const at::Tensor x = torch::randn({9, 32});
  const auto layers = generator.model()->memory_layers();
  std::vector<at::Tensor> before;
  for (const auto& [number, layer] : layers) before.push_back(MemoryLayer(layer)->forward(x));
  Generator other = retrofitted();
  const edit::DenseAddOn student(generator.model(), 6, 1e-3, 0);
  fill(student);
  const std::vector<at::Tensor> weights = student.trained();
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const at::Tensor inner = x.mm(weights[2 * i].t());
    const at::Tensor added =
        layers[i].second->output_scale * (inner * inner.sigmoid()).mm(weights[2 * i + 1].t());
    EXPECT_TRUE(
        torch::allclose(MemoryLayer(layers[i].second)->forward(x), before[i] + added, 1e-4, 1e-5));
  }
  EXPECT_EQ(other.model()->memory_layers()[0].second->forward(x).abs().max().item<float>(), 0)
      << "another model of the same thread";
  EXPECT_EQ(student.parameters(), 2 * 2 * 6 * 32);
  EXPECT_EQ(student.stored_bytes(), 4 * student.parameters());
  EXPECT_EQ(student.kept_bytes(), 0);
}

TEST(DenseAddOn, GivesATokenTheSameBitsHoweverItIsRead) {
  Generator generator = retrofitted();
  const edit::DenseAddOn student(generator.model(), 7, 1e-3, 0);
  fill(student);
  EXPECT_TRUE(torch::equal(decoded(generator, 1), decoded(generator, 3)));
  EXPECT_TRUE(torch::equal(decoded(generator, 1), decoded(generator, 40)));
}

TEST(DenseAddOn, IsPenalisedAsTheMemoryIs) {
  Generator generator = retrofitted();
  const std::vector<train::FactRow> text{{.tokens = {5, 6, 7, 8}, .answer_from = 1}};
  edit::OutputPenalty penalty(generator, text, 1);
  const edit::DenseAddOn student(generator.model(), 6, 1e-3, 0);
  EXPECT_EQ(penalty.draw().item<float>(), 0);
  fill(student);
  const at::Tensor drawn = penalty.draw();
  EXPECT_GT(drawn.item<float>(), 0);
  drawn.backward();
  for (const at::Tensor& weight : student.trained()) {
    EXPECT_GT(weight.grad().abs().max().item<float>(), 0);
  }
}

TEST(DenseAddOn, IsAsWideAsFlopsAndParametersSay) {
  ModelConfig config = testing::tiny_model_config();
  config.memory->variant = MemoryVariant::kPlain;
  // Queries 32 * 2 * 16, scores 2 * 6 * 16, rows 2 * 3 * 32: 1,408 products, of 64 a column.
  EXPECT_EQ(edit::width_of_equal_flops(config), 22);
  config.layers = 4;
  config.memory->layers = std::vector<std::int64_t>{1, 3};
  EXPECT_EQ(edit::width_of_equal_flops(config), 22);  // each layer has its own
  EXPECT_EQ(edit::width_of_parameters(config, 10 * 2 * 64), 10);
  EXPECT_EQ(edit::width_of_parameters(config, 10 * 2 * 64 + 65), 11);
  EXPECT_EQ(edit::width_of_parameters(config, 1), 1);
}

}  // namespace
}  // namespace memlayers

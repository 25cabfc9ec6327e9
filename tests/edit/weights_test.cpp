// SPDX-License-Identifier: Apache-2.0
#include "edit/weights.h"

#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "edit/phrasings.h"
#include "edit/teach.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

std::vector<NewFact> new_facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}}};
}

at::Tensor loss_of(Llama& model, const at::Tensor& tokens) {
  return answer_loss(model, model->hidden_states(tokens.slice(1, 0, -1)), tokens.slice(1, 1));
}

std::vector<at::Tensor> weights_of(Llama& model) {
  std::vector<at::Tensor> all{model->pool()->values.detach().clone()};
  for (const auto& [name, weight] : model->dense_parameters()) {
    all.push_back(weight.detach().clone());
  }
  return all;
}

bool are_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!torch::equal(a[i], b[i])) return false;
  }
  return a.size() == b.size();
}

TEST(LowRank, StepIsThatOfAdaptersThatAutogradSees) {
  Generator generator = testing::tiny_generator();
  Llama& model = generator.model();
  const at::Tensor tokens = torch::randint(3, 300, {2, 9}, torch::kLong);
  constexpr double kLr = 0.01;
  edit::LowRank student(model, 2, kLr, 5);
  const edit::OnlyTrained only(model, student.trained());

  // One matrix's own adapter: the same A from the same generator, it being the first matrix.
  at::Tensor weight = student.trained().front();
  const at::Tensor before = weight.detach().clone();
  at::Generator random = at::make_generator<at::CPUGeneratorImpl>(5);
  at::Tensor a = torch::randn({2, weight.size(1)}, random).mul_(1 / std::sqrt(weight.size(1)));
  at::Tensor b = torch::zeros({weight.size(0), 2});
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  torch::optim::AdamW optimizer({a, b}, torch::optim::AdamWOptions(kLr).weight_decay(0));
  for (int step = 0; step < 3; ++step) {
    loss_of(model, tokens).backward();
    // d loss / d (before + 2 b a), by autograd through the product.
    optimizer.zero_grad();
    (before + 2 * b.mm(a)).backward(weight.grad());
    optimizer.step();
    student.step(1);
    const torch::NoGradGuard no_gradient;
    EXPECT_TRUE(torch::allclose(weight, before + 2 * b.mm(a), 1e-5, 1e-7)) << step;
    EXPECT_FALSE(torch::equal(weight, before));
  }
}

template <class Make>
void expect_learns_and_goes_back(const Make& make) {
  Generator generator = testing::tiny_generator();
  const std::vector<at::Tensor> before = weights_of(generator.model());
  const auto student = make(generator.model());
  const LearnProgress end = edit::teach(generator, *student, new_facts(), {.batch = 2}, {});
  EXPECT_EQ(end.recalled, 2);
  const std::vector<at::Tensor> taught = weights_of(generator.model());
  EXPECT_FALSE(are_equal(taught, before));
  student->show(true);
  EXPECT_TRUE(are_equal(weights_of(generator.model()), before));
  student->show(false);
  EXPECT_TRUE(are_equal(weights_of(generator.model()), taught));
}

TEST(AllWeights, LearnAndGoBackBitForBit) {
  expect_learns_and_goes_back(
      [](Llama& model) { return std::make_unique<edit::AllWeights>(model, 1e-3); });
}

TEST(LowRank, LearnsAndGoesBackBitForBit) {
  expect_learns_and_goes_back(
      [](Llama& model) { return std::make_unique<edit::LowRank>(model, 4, 3e-3, 0); });
}

TEST(LowRank, LeavesThePoolAndAllButProjectionsAsTheyWere) {
  Generator generator = testing::tiny_generator();
  Llama& model = generator.model();
  const at::Tensor rows = model->pool()->values.detach().clone();
  const at::Tensor embedding = model->dense_parameters().front().second.detach().clone();
  edit::LowRank student(model, 4, 1e-2, 0);
  edit::teach(generator, student, new_facts(), {.steps = 3}, {});
  EXPECT_TRUE(torch::equal(model->pool()->values, rows));
  EXPECT_TRUE(torch::equal(model->dense_parameters().front().second, embedding));
}

TEST(Students, SayWhatMustBeStoredAndKept) {
  Generator generator = testing::tiny_generator();
  Llama& model = generator.model();
  std::int64_t weights = model->pool()->values.numel(), projections = 0;
  for (const auto& [name, weight] : model->dense_parameters()) {
    weights += weight.numel();
    if (name.ends_with("proj.weight")) projections += weight.numel();
  }
  const edit::AllWeights all(model, 1e-3);
  EXPECT_EQ(all.stored_bytes(), 4 * weights);
  EXPECT_EQ(all.kept_bytes(), 4 * weights);
  const edit::LowRank low(model, 4, 1e-3, 0);
  EXPECT_EQ(low.stored_bytes(), 4 * low.parameters());
  EXPECT_EQ(low.kept_bytes(), 4 * projections);
  edit::ChosenRows rows(model->pool(), {2, 5, 9}, PoolOptimizer::kAdamW, 1e-2);
  EXPECT_EQ(rows.stored_bytes(), 0) << "none has changed";
  const torch::NoGradGuard no_gradient;
  rows.learned().front()[1].add_(1);
  rows.show(false);
  EXPECT_EQ(rows.stored_bytes(), 32 * 4 + 8);
  EXPECT_EQ(rows.kept_bytes(), 32 * 4);
}

}  // namespace
}  // namespace memlayers

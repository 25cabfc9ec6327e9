// SPDX-License-Identifier: Apache-2.0
#include "train/training_step.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "train/run_testing.h"

namespace memlayers::train {
namespace {

using testing::weights;

ModelConfig tiny_model() {
  ModelConfig config = testing::tiny_config("", "").model;
  config.vocab_size = 50;
  return config;
}

text::Batch random_batch(std::int64_t rows, std::int64_t length, std::uint64_t seed) {
  torch::manual_seed(seed);
  const at::Tensor ids = torch::randint(50, {rows * length}, torch::kLong);
  const at::Tensor has_loss = torch::rand({rows * length}) < 0.4;
  text::Batch batch;
  batch.rows = rows;
  batch.length = length;
  for (std::int64_t i = 0; i < rows * length; ++i) {
    batch.input.push_back(ids[i].item<std::int64_t>());
    const bool target = has_loss[i].item<bool>();
    batch.target.push_back(target ? (7 * i) % 50 : kIgnoredTarget);
    batch.target_tokens += target;
  }
  batch.tokens = rows * length;
  return batch;
}

text::Batch joined(const text::Batch& a, const text::Batch& b) {
  text::Batch both = a;
  both.rows += b.rows;
  both.input.insert(both.input.end(), b.input.begin(), b.input.end());
  both.target.insert(both.target.end(), b.target.begin(), b.target.end());
  both.tokens += b.tokens;
  both.target_tokens += b.target_tokens;
  return both;
}

// The weights before and after one step; eps = 1 makes the change nearly linear in the gradient, so
// that rounding of tiny gradients is not blown up to a whole step.
struct Stepped {
  std::vector<std::pair<std::string, at::Tensor>> before, after;
  StepOutcome outcome;
};
Stepped step_on(std::vector<text::Batch> batches, const StepRates& rates) {
  torch::manual_seed(11);
  Llama model(tiny_model(), 1);
  DenseAdamW dense(model->dense_parameters(), {.eps = 1, .weight_decay = 0});
  RowOptimizer rows(model->pool(), {.eps = 1});
  Stepped result;
  result.before = weights(model);
  result.outcome = train_step(model, dense, &rows, batches, rates);
  result.after = weights(model);
  return result;
}

TEST(TrainStep, OverMicroBatchesEqualsOneBigBatch) {
  const text::Batch a = random_batch(3, 12, 1), b = random_batch(5, 12, 2);
  ASSERT_NE(a.target_tokens, b.target_tokens);
  const StepRates rates{.lr = 1, .value_lr = 1, .clip = {}, .value_clip = {}};
  const Stepped big = step_on({joined(a, b)}, rates), cut = step_on({a, b}, rates);
  EXPECT_NEAR(big.outcome.loss, cut.outcome.loss, 1e-5);
  EXPECT_NEAR(big.outcome.grad_norm, cut.outcome.grad_norm, 1e-5 * big.outcome.grad_norm);
  EXPECT_NEAR(big.outcome.value_grad_norm, cut.outcome.value_grad_norm,
              1e-5 * big.outcome.value_grad_norm);
  EXPECT_EQ(big.outcome.tokens, cut.outcome.tokens);
  EXPECT_EQ(big.outcome.touched_rows, cut.outcome.touched_rows);
  for (std::size_t i = 0; i + 1 < big.before.size(); ++i) {  // the last one is usage
    const at::Tensor change = big.after[i].second - big.before[i].second;
    const at::Tensor other = cut.after[i].second - cut.before[i].second;
    // Float32 sums of some hundred terms in another order; weights of size 1 round the change
    // itself.
    EXPECT_LT((change - other).abs().max().item<double>(),
              1e-4 * change.abs().max().item<double>() + 2e-7)
        << big.before[i].first;
    EXPECT_GT(change.abs().max().item<double>(), 0) << big.before[i].first;
  }
}

TEST(TrainStep, ClipsDenseAndPoolApart) {
  const text::Batch batch = random_batch(4, 12, 3);
  const StepRates free{.lr = 1, .value_lr = 1, .clip = {}, .value_clip = {}};
  const Stepped plain = step_on({batch}, free);
  const auto change = [](const Stepped& s, std::size_t i) {
    return (s.after[i].second - s.before[i].second).norm().item<double>();
  };
  StepRates clipped = free;
  clipped.clip = plain.outcome.grad_norm / 4;
  const Stepped dense_only = step_on({batch}, clipped);
  clipped = free;
  clipped.value_clip = plain.outcome.value_grad_norm / 4;
  const Stepped pool_only = step_on({batch}, clipped);
  const std::size_t pool = plain.before.size() - 2;
  EXPECT_DOUBLE_EQ(change(dense_only, pool), change(plain, pool));
  EXPECT_LT(change(dense_only, 0), 0.5 * change(plain, 0));
  EXPECT_DOUBLE_EQ(change(pool_only, 0), change(plain, 0));
  EXPECT_LT(change(pool_only, pool), 0.5 * change(plain, pool));
  EXPECT_EQ(dense_only.outcome.grad_norm, plain.outcome.grad_norm);  // reported before clipping
}

TEST(TrainStep, WithoutAnyTargetChangesNothing) {
  text::Batch batch = random_batch(2, 6, 4);
  batch.target.assign(batch.target.size(), kIgnoredTarget);
  batch.target_tokens = 0;
  const Stepped s = step_on({batch}, {.lr = 1, .value_lr = 1, .clip = {}, .value_clip = {}});
  EXPECT_FALSE(s.outcome.bad);
  EXPECT_TRUE(std::isnan(s.outcome.loss)) << "of nothing: 0 would read as perfect";
  testing::expect_same_bits(s.before, s.after);
}

}  // namespace
}  // namespace memlayers::train

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

#include "memlayers/optimizer.h"

namespace memlayers {
namespace {

constexpr std::int64_t kKeys = 5, kWidth = 7;

MemoryPool make_pool(RowType type = RowType::kFloat32) {
  return MemoryPool(PoolOptions{.n_keys = kKeys, .width = kWidth, .row_dtype = type, .seed = 3});
}

// Records a gradient: `slots` [T, J] read with random weights, loss a random linear function.
// Returns it dense.
at::Tensor record(MemoryPool& pool, const at::Tensor& slots) {
  const at::Tensor out = pool->gather(slots, torch::rand(slots.sizes()));
  (out * torch::randn_like(out)).sum().backward();
  return pool->dense_gradient();
}

at::Tensor all_slots() { return torch::arange(kKeys * kKeys).view({kKeys, kKeys}); }

// The largest difference relative to the largest number. Both sides make one step of the same
// formula in float32 with roundings in another order: some tens of epsilons (6e-8).
double difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}
constexpr double kTolerance = 5e-6;

TEST(RowOptimizer, EqualsTorchsAdamWWhereEveryRowIsTouched) {
  torch::manual_seed(1);
  MemoryPool pool = make_pool();
  at::Tensor dense = pool->values.detach().clone().requires_grad_();
  torch::optim::AdamW expected(
      {dense}, torch::optim::AdamWOptions(0.02).betas({0.8, 0.9}).eps(1e-6).weight_decay(0.3));
  RowOptimizer optimizer(pool, {.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.3});
  for (int step = 0; step < 6; ++step) {
    dense.mutable_grad() = record(pool, all_slots());
    expected.step();
    const auto result = optimizer.step(0.02);
    EXPECT_EQ(result.touched_rows, kKeys * kKeys);
    EXPECT_LT(difference(pool->values, dense), kTolerance) << "step " << step;
  }
}

TEST(RowOptimizer, CorrectsBiasByTheRowsOwnCountOfUpdates) {
  torch::manual_seed(2);
  MemoryPool pool = make_pool();
  RowOptimizer optimizer(pool, {});
  const at::Tensor late = torch::tensor({{7, 7}});
  for (int step = 0; step < 4; ++step) {
    record(pool, torch::tensor({{1, 2}}));
    optimizer.step(0.02);
  }
  // Its first update: m / (1 - beta1) / sqrt(v / (1 - beta2)) is the gradient's sign.
  const at::Tensor before = pool->values[7].detach().clone();
  const at::Tensor gradient = record(pool, late)[7];
  optimizer.step(0.02);
  EXPECT_LT(difference(pool->values[7] - before, -0.02 * gradient.sign()), 1e-4);
  EXPECT_EQ(optimizer.state().steps[7].item<int>(), 1);
  EXPECT_EQ(optimizer.state().steps[1].item<int>(), 4);
}

TEST(RowOptimizer, LeavesRowsThatWereNotReadAndTheirStateAlone) {
  torch::manual_seed(3);
  for (const RowType type : {RowType::kFloat32, RowType::kBFloat16}) {
    MemoryPool pool = make_pool(type);
    RowOptimizer optimizer(pool, {.weight_decay = 0.5});
    const at::Tensor before = pool->values.detach().clone();
    record(pool, torch::tensor({{3, 24}, {3, 11}}));
    EXPECT_EQ(optimizer.step(0.1).touched_rows, 3);
    const at::Tensor changed = (pool->values != before).any(1);
    EXPECT_TRUE(changed.nonzero().squeeze(1).equal(torch::tensor({3, 11, 24}))) << changed;
    EXPECT_TRUE(optimizer.state().steps.nonzero().squeeze(1).equal(torch::tensor({3, 11, 24})));
    EXPECT_TRUE((optimizer.state().exp_avg.abs().sum(1) > 0).equal(changed));
  }
}

TEST(RowOptimizer, ClipsTheNormOfThePoolsGradient) {
  torch::manual_seed(4);
  MemoryPool pool = make_pool();
  RowOptimizer optimizer(pool, {.kind = PoolOptimizer::kSgd});
  const at::Tensor before = pool->values.detach().clone();
  const at::Tensor gradient = record(pool, torch::tensor({{3, 24}, {3, 11}}));
  const double norm = gradient.norm().item<double>();
  EXPECT_NEAR(optimizer.gradient_norm(), norm, 1e-5 * norm);
  const auto result = optimizer.step(/*lr=*/1.0, /*gradient_scale=*/0.5, /*clip=*/norm / 8);
  EXPECT_NEAR(result.gradient_norm, norm / 2, 1e-5 * norm);
  EXPECT_LT(difference(before - pool->values.detach(), gradient / 8), kTolerance);

  record(pool, torch::tensor({{3}}));
  const double small = optimizer.gradient_norm();
  const at::Tensor again = pool->values.detach().clone();
  const at::Tensor unclipped = pool->dense_gradient();
  optimizer.step(1.0, 1.0, /*clip=*/2 * small);
  EXPECT_LT(difference(again - pool->values.detach(), unclipped), kTolerance);
}

TEST(RowOptimizer, ChangesNothingWhereTheGradientIsNotFinite) {
  torch::manual_seed(5);
  MemoryPool pool = make_pool();
  RowOptimizer optimizer(pool, {});
  record(pool, all_slots());
  optimizer.step(0.1);
  const at::Tensor values = pool->values.detach().clone();
  const at::Tensor exp_avg = optimizer.state().exp_avg.clone();
  const at::Tensor steps = optimizer.state().steps.clone();
  for (const double poison :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    (pool->gather(torch::tensor({{1, 2}}), torch::rand({1, 2})) * poison).sum().backward();
    EXPECT_FALSE(std::isfinite(optimizer.step(0.1).gradient_norm));
    EXPECT_TRUE(pool->values.equal(values));
    EXPECT_TRUE(optimizer.state().exp_avg.equal(exp_avg));
    EXPECT_TRUE(optimizer.state().steps.equal(steps));
    EXPECT_TRUE(pool->gradient().empty());
  }
}

TEST(RowOptimizer, RoundsStochasticallyBySeedSoThatSmallStepsAreNotLost) {
  constexpr double kRate = 1e-4;  // far below half a unit in the last place of values near 1
  const auto train = [&](std::uint64_t seed) {
    MemoryPool pool = make_pool(RowType::kBFloat16);
    {
      const torch::NoGradGuard no_grad;
      pool->values.fill_(1.0);
    }
    RowOptimizer optimizer(pool, {.kind = PoolOptimizer::kSgd, .seed = seed});
    for (int step = 0; step < 200; ++step) {
      pool->gather(all_slots(), torch::ones({kKeys, kKeys})).sum().backward();
      optimizer.step(kRate);
    }
    return pool->values.detach().to(torch::kFloat);
  };
  const at::Tensor first = train(1);
  EXPECT_TRUE(first.equal(train(1)));
  EXPECT_FALSE(first.equal(train(2)));
  // 200 steps of 1e-4 down from 1. One value's deviation is at most sqrt(200) * 2^-9 (steps below 1
  // are 2^-8 apart) = 0.028, the mean's of 175 values 0.0021; five of these.
  EXPECT_NEAR(first.mean().item<double>(), 1 - 200 * kRate, 0.0105);
  EXPECT_LT(first.mean().item<double>(), 0.9999);
}

TEST(RowOptimizer, AppliesStepsToAFloat32MasterWhereAsked) {
  torch::manual_seed(6);
  MemoryPool rounded = make_pool(RowType::kBFloat16), exact = make_pool();
  {
    const torch::NoGradGuard no_grad;
    exact->values.copy_(rounded->values);
  }
  RowOptimizer with_master(rounded, {.master_rows = true}), plain(exact, {});
  for (int step = 0; step < 5; ++step) {
    const at::Tensor weights = torch::rand({kKeys, kKeys});
    const at::Tensor grad = torch::randn({kKeys, kWidth});
    (rounded->gather(all_slots(), weights) * grad).sum().backward();
    (exact->gather(all_slots(), weights) * grad).sum().backward();
    with_master.step(0.01);
    plain.step(0.01);
  }
  EXPECT_TRUE(with_master.state().master.equal(exact->values.detach()));
  EXPECT_TRUE(rounded->values.detach().equal(exact->values.detach().to(torch::kBFloat16)));
}

}  // namespace
}  // namespace memlayers

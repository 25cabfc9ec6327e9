// SPDX-License-Identifier: Apache-2.0
// PoolOptimizer::kDenseAdamW against torch.optim.AdamW over the whole pool.
#include <gtest/gtest.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "memlayers/llama.h"
#include "memlayers/ops.h"
#include "memlayers/optimizer.h"
#include "nn/pool_tables.h"
#include "ops/op_testing.h"
#include "ops/update/missed_steps.h"
#include "support/temp_dir.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::TempDir;

constexpr std::int64_t kKeys = 6, kSlots = kKeys * kKeys, kWidth = 7;
constexpr double kUnit = 1.0 / (1 << 24);  // float32 rounds by at most this part of a number

MemoryPool make_pool(RowType type = RowType::kFloat32) {
  return MemoryPool(PoolOptions{.n_keys = kKeys, .width = kWidth, .row_dtype = type, .seed = 3});
}

at::Tensor rows_of(const MemoryPool& pool) { return pool->values.detach().to(torch::kDouble); }

// Records a gradient that does not depend on the rows' values, and returns it dense.
at::Tensor record(MemoryPool& pool, const at::Tensor& slots) {
  const at::Tensor out = pool->gather(slots, torch::rand(slots.sizes()));
  (out * torch::randn_like(out)).sum().backward();
  return pool->dense_gradient();
}

// [1, J]: slot 0 in every step, slot kSlots - 1 never, slot kSlots - 2 in step 20 only, the others
// at gaps of a few to a hundred steps.
at::Tensor slots_of(int step, std::mt19937& random) {
  std::vector<std::int64_t> slots{0, 0};
  for (std::int64_t slot = 1; slot < kSlots - 2; ++slot) {
    if (random() % (1 + 3 * static_cast<unsigned>(slot)) == 0) slots.push_back(slot);
  }
  if (step == 20) slots.push_back(kSlots - 2);
  return torch::tensor(slots).unsqueeze(0);
}

double rate_of(int step) {  // warm-up, then down, with jumps
  const double warm = std::min(1.0, (step + 1) / 10.0);
  return 0.02 * warm * (1 + std::cos(step * 3.14159 / 200)) / (step % 7 == 3 ? 4 : 1);
}

RowOptimizer::Options options_of(double eps) {
  return {.beta1 = 0.9,
          .beta2 = 0.95,
          .eps = eps,
          .weight_decay = 0.1,
          .kind = PoolOptimizer::kDenseAdamW,
          .seed = 11};
}

// What a row may differ by from torch's AdamW in float64: the bound of ops/update/missed_steps.h
// for every time it catches up, and float32's rounding of the moments, of what a step moves, and of
// the row.
class Bound {
 public:
  Bound(const RowOptimizer::Options& o, const at::Tensor& rows)
      : o_(o),
        most_(rows.abs()),
        m_(torch::zeros_like(rows)),
        size_(torch::zeros_like(rows)),
        v_(torch::zeros_like(rows)),
        size_error_(torch::zeros_like(rows)),
        v_error_(torch::zeros_like(rows)),
        unit_(torch::zeros_like(rows)),
        bound(torch::zeros_like(rows)) {}

  // The rows of `slots` may have caught up: each of these may have been the end of a gap.
  void read(const at::Tensor& slots) {
    const at::Tensor mask = torch::zeros({kSlots, 1}, torch::kDouble)
                                .index_fill(0, std::get<0>(torch::_unique(slots.flatten())), 1);
    const double rho = o_.beta1 / std::sqrt(o_.beta2);
    bound += mask * (ops::kMissedError / std::log(1 / rho) * kMostRate * unit_ + 4 * kUnit * most_);
  }

  // Step t (from 1) with `gradient`, which is zero except in the rows of `slots`, where torch's
  // rows are `rows` now.
  void step(int t, double lr, const at::Tensor& gradient, const at::Tensor& slots,
            const at::Tensor& rows) {
    const double correction1 = 1 - std::pow(o_.beta1, t), correction2 = 1 - std::pow(o_.beta2, t);
    m_ = o_.beta1 * m_ + (1 - o_.beta1) * gradient;
    // |m| may be small by cancellation; its error is of the size of what was added up.
    size_ = o_.beta1 * size_ + (1 - o_.beta1) * gradient.abs();
    v_ = o_.beta2 * v_ + (1 - o_.beta2) * gradient.square();
    size_error_ = o_.beta1 * size_error_ + 6 * kUnit * size_;
    v_error_ = o_.beta2 * v_error_ + 8 * kUnit * v_;
    const at::Tensor root = (v_ / correction2).sqrt() + o_.eps;
    bound += lr / correction1 / root *
             (size_error_ + size_ * (v_error_ / (2 * v_ + 1e-300) + 32 * kUnit)) * 1.01;
    most_ = torch::maximum(most_, rows.abs());
    read(slots);
    const at::Tensor mask = torch::zeros({kSlots, 1}, torch::kDouble)
                                .index_fill(0, std::get<0>(torch::_unique(slots.flatten())), 1);
    unit_ = torch::where(mask > 0, m_.abs() / correction1 / root / std::sqrt(correction2), unit_);
  }

  static constexpr double kMostRate = 0.04;

 private:
  RowOptimizer::Options o_;
  at::Tensor most_, m_, size_, v_, size_error_, v_error_, unit_;

 public:
  at::Tensor bound;
};

struct Kind {
  const char* name;
  RowType rows;
  bool master;
  double eps;
};

class DenseRowAdamW : public ::testing::TestWithParam<Kind> {};

TEST_P(DenseRowAdamW, EqualsTorchsAdamWOverTheWholePoolFor200StepsWithinItsBound) {
  torch::manual_seed(1);
  std::mt19937 random(5);
  MemoryPool pool = make_pool(GetParam().rows);
  const at::Tensor first = rows_of(pool).clone();
  RowOptimizer::Options options = options_of(GetParam().eps);
  options.master_rows = GetParam().master;
  RowOptimizer ours(pool, options);

  using Torch = torch::optim::AdamWOptions;
  const auto torch_options = [&] {
    return Torch(1e-3).betas({0.9, 0.95}).eps(options.eps).weight_decay(0.1);
  };
  at::Tensor exact = first.clone().requires_grad_();
  at::Tensor single = first.to(torch::kFloat).clone().requires_grad_();
  torch::optim::AdamW in_double({exact}, torch_options()), in_float({single}, torch_options());
  Bound bound(options, first);
  const auto now = [&] {
    return GetParam().master ? ours.state().master.to(torch::kDouble) : rows_of(pool);
  };

  for (int step = 0; step < 200; ++step) {
    const at::Tensor slots = slots_of(step, random);
    bound.read(slots);
    const at::Tensor gradient = record(pool, slots);
    // Rows are current when they are read.
    const at::Tensor read = now() - exact.detach();
    const at::Tensor touched = std::get<0>(torch::_unique(slots.flatten()));
    EXPECT_TRUE((read.abs() <= bound.bound).index_select(0, touched).all().item<bool>()) << step;

    exact.mutable_grad() = gradient.to(torch::kDouble);
    single.mutable_grad() = gradient.clone();
    for (auto* optimizer : {&in_double, &in_float}) {
      static_cast<Torch&>(optimizer->param_groups()[0].options()).lr(rate_of(step));
      optimizer->step();
    }
    const auto result = ours.step(rate_of(step));
    EXPECT_EQ(result.touched_rows, touched.numel());
    const double norm = gradient.norm().item<double>();
    EXPECT_NEAR(result.gradient_norm, norm, 1e-5 * norm);
    bound.step(step + 1, rate_of(step), gradient.to(torch::kDouble), slots, exact.detach());
  }
  bound.read(torch::arange(kSlots));
  const at::Tensor lagging = (now() - exact.detach()).abs();
  pool->catch_up();
  const at::Tensor error = (now() - exact.detach()).abs();
  EXPECT_TRUE((error <= bound.bound).all().item<bool>()) << (error - bound.bound).max();
  // Torch's own float32 rounds as often as there are steps: the row, by which both err, and
  // moments.
  const at::Tensor apart = (now() - single.detach()).abs();
  EXPECT_TRUE(
      (apart <= 2 * bound.bound + 200 * 3 * kUnit * exact.detach().abs().max()).all().item<bool>());
  // The bound is worth something: far below what rows move by, and by momentum alone.
  EXPECT_LT(bound.bound.max().item<double>(), 1e-3);
  EXPECT_GT(lagging.max().item<double>(), 1e-2);
  if (GetParam().master) {
    EXPECT_TRUE(pool->values.detach().equal(ours.state().master.to(torch::kBFloat16)));
  }
}

TEST(DenseRowAdamWRows, AreCurrentWhereverTheyAreRead) {
  torch::manual_seed(2);
  MemoryPool pool = make_pool();
  RowOptimizer optimizer(pool, options_of(1e-8));
  record(pool, torch::arange(kSlots).view({kKeys, kKeys}));
  optimizer.step(0.02);
  for (int step = 0; step < 9; ++step) {
    record(pool, torch::tensor({{0, 1}}));
    optimizer.step(0.02);
  }
  const at::Tensor lagging = pool->values.detach().clone();
  at::Tensor caught_up = torch::empty_like(lagging);
  pool->tables().lag()->read(0, {static_cast<std::byte*>(caught_up.mutable_data_ptr()),
                                 static_cast<std::size_t>(caught_up.nbytes())});
  EXPECT_TRUE(pool->values.detach().equal(lagging));  // reading a copy changes nothing
  const at::Tensor moved = (caught_up - lagging).abs().amax(1);
  EXPECT_EQ((moved > 1e-3).sum().item<std::int64_t>(), kSlots - 2);  // not those of every step

  const auto one_row = [&](std::int64_t slot) { return caught_up.narrow(0, slot, 1); };
  const at::Tensor one = torch::ones({1, 1});
  pool->train();
  EXPECT_TRUE(pool->gather(torch::tensor({{5}}), one).equal(one_row(5)));
  pool->eval();
  {
    const c10::InferenceMode inference;
    EXPECT_TRUE(pool->gather(torch::tensor({{6}}), one).equal(one_row(6)));
    // Many times in one call, as rows that all tokens like.
    EXPECT_TRUE(pool->gather(torch::full({300, 1}, 7), torch::ones({300, 1}))
                    .equal(one_row(7).expand({300, kWidth})));
    const at::Tensor x = torch::ones({1, 3}), slots = torch::tensor({{8}});
    EXPECT_TRUE(
        pool->peer_gather(x, slots, one).equal(memlayers::peer_gather(caught_up, x, slots, one)));
  }
  const at::Tensor others = torch::arange(9, kSlots);
  EXPECT_TRUE(pool->values.detach().index_select(0, others).equal(lagging.index_select(0, others)));
  pool->catch_up();
  EXPECT_TRUE(pool->values.detach().equal(caught_up));
  pool->catch_up();  // once
  EXPECT_TRUE(pool->values.detach().equal(caught_up));
  EXPECT_THROW(pool->gather(torch::tensor({{kSlots}}), one), c10::IndexError);
}

TEST(DenseRowAdamWRows, CatchUpOnceForReadersInSeveralThreads) {
  torch::manual_seed(3);
  MemoryPool pool = make_pool();
  RowOptimizer optimizer(pool, options_of(1e-8));
  const at::Tensor all = torch::arange(kSlots).view({kSlots, 1});
  record(pool, all);
  optimizer.step(0.02);
  for (int step = 0; step < 9; ++step) optimizer.step(0.02);
  at::Tensor wanted = torch::empty({kSlots, kWidth});
  pool->tables().lag()->read(0, {static_cast<std::byte*>(wanted.mutable_data_ptr()),
                                 static_cast<std::size_t>(wanted.nbytes())});
  pool->eval();
  std::vector<at::Tensor> read(4);
  std::vector<std::thread> threads;
  for (at::Tensor& rows : read) {
    threads.emplace_back([&] {
      const c10::InferenceMode inference;
      rows = pool->gather(all, torch::ones({kSlots, 1}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const at::Tensor& rows : read) EXPECT_TRUE(rows.equal(wanted));
}

TEST(DenseRowAdamWRows, NeverTouchedKeepTheirBitsUnlessTheyDecay) {
  for (const double decay : {0.0, 0.5}) {
    torch::manual_seed(4);
    MemoryPool pool = make_pool();
    RowOptimizer::Options options = options_of(1e-8);
    options.weight_decay = decay;
    RowOptimizer optimizer(pool, options);
    const at::Tensor before = pool->values.detach().clone();
    for (int step = 0; step < 5; ++step) {
      record(pool, torch::tensor({{0, 1}}));
      optimizer.step(0.1);
    }
    pool->catch_up();
    const at::Tensor wanted = before.to(torch::kDouble) * std::pow(1 - 0.1 * decay, 5);
    const at::Tensor error = (rows_of(pool) - wanted).abs().slice(0, 2);
    EXPECT_LE(error.max().item<double>(), decay == 0 ? 0 : 4 * kUnit);
    EXPECT_EQ(optimizer.state().steps[2].item<int>(), decay == 0 ? 0 : 5);
  }
}

TEST(DenseRowAdamWRows, MoveOnAverageAsInFloat32WhereBfloat16IsRoundedStochastically) {
  constexpr std::int64_t kManyKeys = 20;
  const auto train = [](RowType type, std::uint64_t seed) {
    MemoryPool pool(PoolOptions{.n_keys = kManyKeys, .width = 64, .row_dtype = type});
    pool->values.detach().fill_(1.0);
    RowOptimizer::Options options = options_of(1e-8);
    options.seed = seed;
    RowOptimizer optimizer(pool, options);
    const at::Tensor all = torch::arange(kManyKeys * kManyKeys).view({kManyKeys, kManyKeys});
    pool->gather(all, torch::ones({kManyKeys, kManyKeys})).sum().backward();
    optimizer.step(1e-4);
    for (int step = 0; step < 50; ++step) optimizer.step(1e-4);
    pool->catch_up();
    return pool->values.detach().to(torch::kDouble);
  };
  const at::Tensor exact = train(RowType::kFloat32, 1), rounded = train(RowType::kBFloat16, 1);
  EXPECT_TRUE(rounded.equal(train(RowType::kBFloat16, 1)));
  EXPECT_FALSE(rounded.equal(train(RowType::kBFloat16, 2)));
  // Two roundings of numbers near 1, each by less than 2^-8; five deviations of their mean.
  const double bound = 5 * std::pow(2, -8) * std::sqrt(2) / std::sqrt(rounded.numel());
  EXPECT_NEAR(rounded.mean().item<double>(), exact.mean().item<double>(), bound);
  EXPECT_LT(exact.mean().item<double>(), 1 - 2 * bound);
}

TEST(DenseRowAdamWRows, HaveTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    torch::manual_seed(5);
    MemoryPool pool(
        PoolOptions{.n_keys = 30, .width = 400, .row_dtype = RowType::kBFloat16, .seed = 3});
    RowOptimizer optimizer(pool, options_of(1e-8));
    for (int step = 0; step < 8; ++step) {
      record(pool, torch::randint(900, {60, 5}));
      optimizer.step(0.02);
    }
    pool->catch_up();
    results.push_back(
        torch::cat({pool->values.detach().to(torch::kFloat), optimizer.state().exp_avg}));
  }
  at::set_num_threads(before);
  EXPECT_TRUE(results[1].equal(results[0]));
  EXPECT_TRUE(results[2].equal(results[0]));
}

TEST(DenseRowAdamWSteps, WithoutAGradientAreStepsOfZerosAndBadOnesAreNone) {
  torch::manual_seed(6);
  MemoryPool one = make_pool(), two = make_pool();
  RowOptimizer first(one, options_of(1e-8)), second(two, options_of(1e-8));
  const at::Tensor slots = torch::tensor({{1, 2}}), weights = torch::rand({1, 2});
  for (MemoryPool* pool : {&one, &two}) (*pool)->gather(slots, weights).sum().backward();
  first.step(0.1);
  second.step(0.1);
  EXPECT_EQ(first.step(0.1).touched_rows, 0);
  // The other one is given the zeros.
  two->gather(slots, torch::zeros({1, 2})).sum().backward();
  EXPECT_EQ(second.step(0.1).touched_rows, 2);

  (one->gather(slots, weights) * std::numeric_limits<double>::infinity()).sum().backward();
  EXPECT_FALSE(std::isfinite(first.step(0.1).gradient_norm));
  EXPECT_EQ(first.steps(), 2);
  EXPECT_EQ(second.steps(), 2);
  one->catch_up();
  two->catch_up();
  EXPECT_LE((rows_of(one) - rows_of(two)).abs().max().item<double>(), 4 * kUnit);

  one->gather(slots, weights).sum().backward();
  EXPECT_THROW(first.step(20), c10::ValueError);  // lr * weight_decay = 2
  EXPECT_EQ(first.steps(), 2);
  EXPECT_EQ(first.step(0.1).touched_rows, 2);  // the gradient is still there
}

TEST(DenseRowAdamWSteps, GoOnWhereMoreThanAreKeptWereMade) {
  torch::manual_seed(7);
  MemoryPool pool = make_pool();
  RowOptimizer::Options options = options_of(1e-8);
  options.weight_decay = 1e-3;
  RowOptimizer optimizer(pool, options);
  const at::Tensor slots = torch::tensor({{1, 2}});
  const double start = rows_of(pool)[0][0].item<double>();
  record(pool, slots);
  optimizer.step(0.01);
  const std::int64_t steps = ops::MissedSteps::kMostSteps + 100;
  for (std::int64_t t = 1; t < steps; ++t) optimizer.step(0.01);
  EXPECT_EQ(optimizer.missed_steps().size(0), 100);
  pool->catch_up();
  EXPECT_NEAR(rows_of(pool)[0][0].item<double>(),
              start * std::exp(static_cast<double>(steps) * std::log1p(-1e-5)), 4 * kUnit);
  EXPECT_EQ(optimizer.state().steps[1].item<int>(), steps);
}

TEST(DenseRowAdamWPool, LeavesAllRowsCurrentWhenItIsDestroyed) {
  torch::manual_seed(8);
  MemoryPool pool = make_pool();
  at::Tensor wanted = torch::empty({kSlots, kWidth});
  {
    RowOptimizer optimizer(pool, options_of(1e-8));
    record(pool, torch::tensor({{1, 2}}));
    optimizer.step(0.1);
    optimizer.step(0.1);
    pool->tables().lag()->read(0, {static_cast<std::byte*>(wanted.mutable_data_ptr()),
                                   static_cast<std::size_t>(wanted.nbytes())});
    EXPECT_FALSE(pool->values.detach().equal(wanted));
  }
  EXPECT_EQ(pool->tables().lag(), nullptr);
  EXPECT_TRUE(pool->values.detach().equal(wanted));
  EXPECT_TRUE(
      pool->gather(torch::tensor({{1}}), torch::ones({1, 1})).equal(wanted.narrow(0, 1, 1)));

  // Another takes its place while it lives: rows catch up, and the old one's end changes nothing.
  auto old = std::make_unique<RowOptimizer>(pool, options_of(1e-8));
  record(pool, torch::tensor({{1, 2}}));
  old->step(0.1);
  old->step(0.1);
  const at::Tensor before = pool->values.detach().clone();
  RowOptimizer next(pool, options_of(1e-8));
  const at::Tensor after = pool->values.detach().clone();
  EXPECT_FALSE(after.equal(before));
  const auto lag = pool->tables().lag();
  old.reset();
  EXPECT_EQ(pool->tables().lag(), lag);
  EXPECT_TRUE(pool->values.detach().equal(after));
}

TEST(DenseRowAdamWPool, SavesRowsThatCaughtUpAndTouchesNone) {
  const TempDir dir;
  torch::manual_seed(9);
  Llama model(testing::tiny_model_config(), 1);
  RowOptimizer optimizer(model->pool(), options_of(1e-8));
  model->hidden_states(torch::randint(300, {2, 9}, torch::kLong)).square().sum().backward();
  optimizer.step(0.1);
  optimizer.step(0.1);
  const at::Tensor lagging = model->pool()->values.detach().clone();
  save_model(model, dir.path());
  EXPECT_TRUE(model->pool()->values.detach().equal(lagging));
  model->pool()->catch_up();
  EXPECT_FALSE(model->pool()->values.detach().equal(lagging));
  EXPECT_TRUE(load_model(dir.path())->pool()->values.equal(model->pool()->values));
}

TEST(DenseRowAdamWPool, IsDoneWithRowsThatAreQuantized) {
  const TempDir dir;
  torch::manual_seed(9);
  Llama model(testing::tiny_model_config(), 1);
  {
    RowOptimizer optimizer(model->pool(), options_of(1e-8));
    model->hidden_states(torch::randint(300, {2, 9}, torch::kLong)).square().sum().backward();
    optimizer.step(0.1);
    optimizer.step(0.1);
    const MemoryPool pool = model->pool();
    at::Tensor caught_up = torch::empty_like(pool->values.detach());
    pool->tables().lag()->read(0, {static_cast<std::byte*>(caught_up.mutable_data_ptr()),
                                   static_cast<std::size_t>(caught_up.nbytes())});
    model->quantize_pool(RowType::kInt8);
    EXPECT_TRUE(pool->values.equal(quantize_rows(caught_up, RowType::kInt8)));
    save_model(model, dir.path());
  }
  EXPECT_TRUE(load_model(dir.path())->pool()->values.equal(model->pool()->values));
}

TEST(DenseRowAdamWPool, GoesOnFromRestoredTablesBitForBit) {
  torch::manual_seed(10);
  MemoryPool one = make_pool(), two = make_pool();
  RowOptimizer first(one, options_of(1e-8)), second(two, options_of(1e-8));
  for (int step = 0; step < 30; ++step) {
    record(one, torch::randint(kSlots, {1, 2}));
    first.step(rate_of(step));
  }
  {
    const torch::NoGradGuard no_grad;
    two->values.copy_(one->values);
    second.state().exp_avg.copy_(first.state().exp_avg);
    second.state().exp_avg_sq.copy_(first.state().exp_avg_sq);
    second.state().steps.copy_(first.state().steps);
  }
  second.set_steps(first.steps(), first.missed_steps());
  one->catch_up();
  two->catch_up();
  EXPECT_TRUE(two->values.equal(one->values));
  EXPECT_THROW(second.set_steps(3, first.missed_steps()), c10::ValueError);
  EXPECT_THROW(second.set_steps(3, torch::ones({2, 3}, torch::kDouble)), c10::ValueError);
}

TEST(DenseRowAdamWPool, RefusesBetasWhoseMomentumOutlastsTheMeanSquare) {
  MemoryPool pool = make_pool();
  EXPECT_THROW(
      RowOptimizer(pool, {.beta1 = 0.95, .beta2 = 0.9, .kind = PoolOptimizer::kDenseAdamW}),
      c10::ValueError);
  EXPECT_EQ(pool->tables().lag(), nullptr);
}

INSTANTIATE_TEST_SUITE_P(
    RowsAndEps, DenseRowAdamW,
    ::testing::Values(Kind{"float32", RowType::kFloat32, false, 1e-8},
                      Kind{"float32_eps_of_the_gradients_size", RowType::kFloat32, false, 0.3},
                      Kind{"bfloat16_with_master", RowType::kBFloat16, true, 1e-8}),
    [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace memlayers

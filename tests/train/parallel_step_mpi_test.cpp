// SPDX-License-Identifier: Apache-2.0
// Training steps that all processes of the test make together, beside those of one.
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "dist/collectives.h"
#include "support/testing.h"
#include "train/training_step.h"

namespace memlayers::train {
namespace {

ModelConfig model_config(MemoryVariant variant = MemoryVariant::kMemoryPlus) {
  ModelConfig config;
  config.dim = 32;
  config.layers = 3;
  config.heads = 2;
  config.ff_dim = 48;
  config.vocab_size = 50;
  config.context = 16;
  config.memory.emplace();
  config.memory->layers = std::vector<std::int64_t>{1, 2};
  config.memory->n_keys = 8;
  config.memory->heads = 2;
  config.memory->knn = 4;
  config.memory->k_dim = 8;
  config.memory->v_dim = 96;
  config.memory->variant = variant;
  return config;
}

// Sequences with something to learn: each token is the one before, plus a number of its row. `few`:
// some processes have none.
std::vector<text::Batch> batches(std::int64_t step, std::int64_t count = 1, bool few = false) {
  std::vector<text::Batch> all;
  for (std::int64_t b = 0; b < count; ++b) {
    const std::int64_t rows = few ? 2 : 4 + (step + b) % 3, length = 8;
    text::Batch batch;
    batch.rows = rows;
    batch.length = length;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::int64_t token = (7 * step + 3 * b + row) % 50;
      for (std::int64_t t = 0; t < length; ++t) {
        batch.input.push_back(token);
        token = (token + 1 + row) % 50;
        const bool is_target = t + row > 1;  // rows have different numbers of them
        batch.target.push_back(is_target ? token : text::kIgnored);
        batch.target_tokens += is_target ? 1 : 0;
      }
    }
    batch.tokens = rows * length;
    all.push_back(std::move(batch));
  }
  return all;
}

struct Training {
  Llama model{nullptr};
  std::unique_ptr<DenseAdamW> dense;
  std::unique_ptr<RowOptimizer> rows;
  std::unique_ptr<GradientSum> gradients;
};

class ParallelStep : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  static Training make(const ModelConfig& config, const MemoryGroup& group) {
    Training run;
    torch::manual_seed(11);
    run.model = Llama(config, 5, std::nullopt, group);
    run.model->train();
    run.dense = std::make_unique<DenseAdamW>(run.model->dense_parameters(), DenseAdamW::Options{});
    run.rows = std::make_unique<RowOptimizer>(run.model->pool(), RowOptimizer::Options{});
    return run;
  }
  Training make_together(const Processes& processes, const ModelConfig& config,
                         const GradientSum::Options& options = {.bucket_mb = 0.01}) const {
    Training run = make(config, processes.group());
    run.gradients = std::make_unique<GradientSum>(world_, run.model->dense_parameters(), options);
    return run;
  }
  // Small rates, so that the last bits, in which the runs differ, tip no choice of a slot: a single
  // one shows in the loss of so few tokens (docs/parallel.md).
  static StepOutcome step(Training& run, std::vector<text::Batch> all, const Processes* processes,
                          const StepRates& rates = {
                              .lr = 2e-4, .value_lr = 1e-3, .clip = 1.0, .value_clip = 0.5}) {
    if (processes == nullptr) return train_step(run.model, *run.dense, run.rows.get(), all, rates);
    const Together together{*processes, *run.gradients};
    return train_step(run.model, *run.dense, run.rows.get(), all, rates, together);
  }

  std::shared_ptr<Communicator> world_ = world();
};

TEST_F(ParallelStep, AHundredStepsHaveTheLossesOfOneProcess) {
  for (const PoolSplitKind split : {PoolSplitKind::kColumns, PoolSplitKind::kRows}) {
    const Processes processes(world_, {.split = split});
    Training alone = make(model_config(), {}), together = make_together(processes, model_config());
    double first = 0, last = 0;
    for (std::int64_t i = 0; i < 100; ++i) {
      const StepOutcome a = step(alone, batches(i), nullptr);
      const StepOutcome b = step(together, batches(i), &processes);
      ASSERT_NEAR(a.loss, b.loss, 1e-5) << "step " << i;
      EXPECT_EQ(a.touched_rows, b.touched_rows);
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-4 * a.grad_norm);
      (i == 0 ? first : last) = a.loss;
    }
    EXPECT_LT(last, 0.95 * first);
  }
}

// Each process has as many whole micro-batches as the others, so that all matrix products are those
// of one process that has them all; what is summed is summed in the same pairs.
TEST_F(ParallelStep, WholeMicroBatchesHaveTheBitsOfOneProcess) {
  const StepRates rates{.lr = 3e-3, .value_lr = 1e-2, .clip = 0.5, .value_clip = 0.05};
  struct Setting {
    MemoryVariant variant;
    std::int64_t each, groups, steps;
  };
  for (const Setting& s :
       {Setting{MemoryVariant::kMemoryPlus, 1, 1, 24}, Setting{MemoryVariant::kMemoryPlus, 4, 2, 8},
        Setting{MemoryVariant::kPeer, 2, 1, 8}}) {
    if (world_->size() % s.groups != 0) continue;
    SCOPED_TRACE(::testing::Message() << s.each << " each, " << s.groups << " groups");
    const Processes processes(world_, {.groups = s.groups, .split = PoolSplitKind::kColumns});
    const ModelConfig config = model_config(s.variant);
    Training alone = make(config, {}), together = make_together(processes, config);
    for (std::int64_t i = 0; i < s.steps; ++i) {
      std::vector<text::Batch> all = batches(i, s.each * world_->size());
      if (i % 3 == 0) {  // one without a target
        text::Batch& none = all[static_cast<std::size_t>(i) % all.size()];
        none.target.assign(none.target.size(), text::kIgnored);
        none.target_tokens = 0;
      }
      const StepOutcome a = step(alone, all, nullptr, rates);
      const StepOutcome b = step(together, all, &processes, rates);
      // One process has nothing to predict where its only micro-batch is the one without.
      const bool has_loss = all.size() > 1 || i % 3 != 0;
      ASSERT_EQ(std::isnan(a.loss), !has_loss) << "step " << i;
      ASSERT_EQ(std::isnan(b.loss), !has_loss) << "step " << i;
      if (has_loss) {
        ASSERT_EQ(a.loss, b.loss) << "step " << i;
      }
      ASSERT_EQ(a.grad_norm, b.grad_norm) << "step " << i;
      ASSERT_EQ(a.value_grad_norm, b.value_grad_norm) << "step " << i;
      ASSERT_EQ(a.touched_rows, b.touched_rows) << "step " << i;
    }
    const auto weights = alone.model->dense_parameters(),
               others = together.model->dense_parameters();
    for (std::size_t w = 0; w < weights.size(); ++w) {
      EXPECT_TRUE(weights[w].second.equal(others[w].second)) << weights[w].first;
    }
  }
}

TEST_F(ParallelStep, SoDoesPeer) {
  const Processes processes(world_, {});
  const ModelConfig config = model_config(MemoryVariant::kPeer);
  Training alone = make(config, {}), together = make_together(processes, config);
  for (std::int64_t i = 0; i < 20; ++i) {
    ASSERT_NEAR(step(alone, batches(i, 2), nullptr).loss,
                step(together, batches(i, 2), &processes).loss, 1e-5);
  }
}

TEST_F(ParallelStep, EveryProcessKeepsTheSameDenseWeightsThoughSomeHaveNoRows) {
  const Processes processes(world_, {});
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Training run = make_together(processes, model_config(), {.bucket_mb = 0.02, .type = type});
    for (std::int64_t i = 0; i < 5; ++i) step(run, batches(i, 2, /*few=*/true), &processes);
    for (const auto& [name, parameter] : run.model->dense_parameters()) {
      const at::Tensor mine = parameter.detach().contiguous();
      const auto all = dist::all_gather(
          *world_, {static_cast<const std::byte*>(mine.const_data_ptr()), mine.nbytes()});
      for (const Message& other : all) {
        EXPECT_TRUE(std::ranges::equal(all[0].bytes(), other.bytes())) << name;
      }
    }
  }
}

TEST_F(ParallelStep, TwoRunsOfOneLayoutHaveTheSameBits) {
  const Processes processes(world_, {});
  Training a = make_together(processes, model_config()),
           b = make_together(processes, model_config());
  for (std::int64_t i = 0; i < 5; ++i) {
    const StepOutcome of_a = step(a, batches(i, 2), &processes);
    const StepOutcome of_b = step(b, batches(i, 2), &processes);
    EXPECT_EQ(of_a.loss, of_b.loss);
    EXPECT_EQ(of_a.value_grad_norm, of_b.value_grad_norm);
  }
  EXPECT_TRUE(a.model->pool()->values.equal(b.model->pool()->values));
}

TEST_F(ParallelStep, MemoryGroupsKeepTheSamePool) {
  if (world_->size() % 2 != 0) GTEST_SKIP() << "two groups need an even number of processes";
  const Processes processes(world_, {.groups = 2});
  Training alone = make(model_config(), {}), together = make_together(processes, model_config());
  for (std::int64_t i = 0; i < 20; ++i) {
    ASSERT_NEAR(step(alone, batches(i), nullptr).loss, step(together, batches(i), &processes).loss,
                1e-5);
  }
  const at::Tensor mine = together.model->pool()->values.detach();
  const auto all =
      dist::all_gather(*processes.group().replicas,
                       {static_cast<const std::byte*>(mine.const_data_ptr()), mine.nbytes()});
  EXPECT_TRUE(std::ranges::equal(all[0].bytes(), all[1].bytes()));
}

TEST_F(ParallelStep, ALossThatIsNotFiniteInOneProcessChangesNothingInAny) {
  const Processes processes(world_, {});
  Training run = make_together(processes, model_config());
  step(run, batches(0), &processes);
  // What only the last process reads makes its loss infinite.
  const at::Tensor weight = run.model->dense_parameters()[0].second;
  const at::Tensor before = weight.detach().clone();
  const at::Tensor pool = run.model->pool()->values.detach().clone();
  if (world_->rank() == world_->size() - 1) {
    const torch::NoGradGuard no_grad;
    weight.mul_(std::numeric_limits<float>::infinity());
  }
  const StepOutcome outcome = step(run, batches(1), &processes);
  EXPECT_TRUE(outcome.bad);
  EXPECT_FALSE(std::isfinite(outcome.loss));
  if (world_->rank() < world_->size() - 1) {
    EXPECT_TRUE(weight.equal(before));
  }
  EXPECT_TRUE(run.model->pool()->values.equal(pool));
}

TEST_F(ParallelStep, EveryRowOfABatchIsInOneShare) {
  const Processes processes(world_, {});
  std::vector<std::int64_t> targets;
  for (const text::Batch& batch : batches(0, 3)) {
    const text::Batch share = processes.share_of(batch);
    targets.push_back(share.target_tokens);
    EXPECT_EQ(static_cast<std::int64_t>(share.input.size()), share.rows * batch.length);
  }
  std::vector<double> sums(targets.begin(), targets.end());
  dist::sum_pairwise(*world_, sums);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    EXPECT_EQ(sums[i], static_cast<double>(batches(0, 3)[i].target_tokens));
  }
}

TEST_F(ParallelStep, GroupsThatDoNotDivideTheProcessesAreRefused) {
  EXPECT_TRUE(memlayers::testing::says(
      memlayers::testing::error_of([&] { Processes(world_, {.groups = 77}); }),
      {"[parallel] groups", "got 77"}));
}

}  // namespace
}  // namespace memlayers::train

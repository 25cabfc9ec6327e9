// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "memlayers/trainer.h"
#include "support/temp_dir.h"
#include "train/metrics.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::expect_same_bits;
using testing::TempDir;
using testing::tiny_config;
using testing::weights;

struct Kind {
  const char* name;
  RowType rows;
  DenseType dense;
  bool master_rows;
  std::int64_t threads;
  PoolOptimizer optimizer = PoolOptimizer::kAdamW;
  double value_beta1 = 0.9;
};

class Resume : public ::testing::TestWithParam<Kind> {};

// All that a later step depends on besides the weights; the file holds no time and no path.
std::string optimizer_bytes(const std::string& checkpoint) {
  return io::read_text(io::posix(), checkpoint + "/optimizer/dense.safetensors") +
         io::read_text(io::posix(), checkpoint + "/optimizer/rows.safetensors");
}

TEST_P(Resume, EqualsARunThatWasNeverStoppedBitForBit) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  const auto config = [&](const std::string& out) {
    TrainConfig c = tiny_config(dir / out, dir / "facts.jsonl");
    c.model.memory->row_dtype = GetParam().rows;
    c.model.dtype = GetParam().dense;
    c.train.master_rows = GetParam().master_rows;
    c.train.threads = GetParam().threads;
    c.train.value_optimizer = GetParam().optimizer;
    c.train.value_beta1 = GetParam().value_beta1;
    c.train.value_weight_decay = 0.1;
    c.train.accumulate = 2;
    c.train.schedule = Schedule::kCosine;
    c.train.value_clip = 0.5;
    c.train.log_every = 2;
    c.data.valid = {dir / "facts.jsonl"};
    c.train.eval_every = 3;
    return c;
  };
  Trainer whole(config("whole"));
  whole.run();

  // Stopped after step 3, resumed, stopped after 5, resumed.
  for (const std::int64_t last : {3, 5}) {
    std::atomic<bool> stop = false;
    TrainCallbacks callbacks;
    callbacks.stop = &stop;
    callbacks.step = [&](const StepMetrics& m, std::int64_t) { stop = m.step >= last - 1; };
    EXPECT_EQ(Trainer(config("parts"), callbacks).run().step, last);
  }
  Trainer parts(config("parts"));
  parts.run();

  expect_same_bits(weights(whole.model()), weights(parts.model()));
  EXPECT_EQ(optimizer_bytes(dir / "whole/step-8"), optimizer_bytes(dir / "parts/step-8"));
  EXPECT_TRUE(load_model(dir / "whole/step-8")
                  ->pool()
                  ->values.equal(load_model(dir / "parts/step-8")->pool()->values));
  const auto a = train::RunLog(io::posix(), dir / "whole", 8).metrics();
  const auto b = train::RunLog(io::posix(), dir / "parts", 8).metrics();
  ASSERT_EQ(a.size(), b.size());
  ASSERT_EQ(a.size(), 5U);  // steps 2, 3, 4, 6, 8: logged or evaluated
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].step, b[i].step);
    EXPECT_EQ(a[i].loss, b[i].loss) << "step " << a[i].step;
    EXPECT_EQ(a[i].lr, b[i].lr);
    EXPECT_EQ(a[i].tokens, b[i].tokens);
    EXPECT_EQ(a[i].epoch, b[i].epoch);
    EXPECT_EQ(a[i].eval_loss, b[i].eval_loss);
    EXPECT_EQ(a[i].grad_norm, b[i].grad_norm);
    EXPECT_EQ(a[i].value_grad_norm, b[i].value_grad_norm);
    EXPECT_GT(b[i].time_s, i == 0 ? 0 : b[i - 1].time_s);
  }
}

TEST(ResumedRun, DropsWhatALostRunLoggedAfterItsLastCheckpoint) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  TrainConfig c = tiny_config(dir / "run", dir / "facts.jsonl");
  c.train.save_every = 3;
  struct Crash {};
  TrainCallbacks callbacks;
  callbacks.step = [](const StepMetrics& m, std::int64_t) {
    if (m.step == 5) throw Crash{};
  };
  EXPECT_THROW(Trainer(c, callbacks).run(), Crash);
  EXPECT_EQ(train::RunLog(io::posix(), c.out, 100).metrics().back().step, 5);
  Trainer(c).run();
  const auto metrics = train::RunLog(io::posix(), c.out, 100).metrics();
  ASSERT_EQ(metrics.size(), 8U);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(metrics[i].step, static_cast<std::int64_t>(i + 1));
}

TEST(ResumedRun, StartsAPassAnewWhereTheDataChanged) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  TrainConfig c = tiny_config(dir / "run", dir / "facts.jsonl");
  c.train.steps = 2;
  Trainer(c).run();
  c.train.steps = 4;
  c.train.batch_tokens = 128;
  std::vector<std::string> notices;
  TrainCallbacks callbacks;
  callbacks.notice = [&](const std::string& text) { notices.push_back(text); };
  EXPECT_EQ(Trainer(c, callbacks).run().step, 4);
  ASSERT_FALSE(notices.empty());
  EXPECT_NE(notices[0].find("batch_tokens 128"), std::string::npos) << notices[0];
}

INSTANTIATE_TEST_SUITE_P(
    RowsAndWeights, Resume,
    ::testing::Values(
        Kind{"float32", RowType::kFloat32, DenseType::kFloat32, false, 1},
        Kind{"float32_two_threads", RowType::kFloat32, DenseType::kFloat32, false, 2},
        Kind{"bfloat16_rows_rounded_stochastically", RowType::kBFloat16, DenseType::kFloat32, false,
             1},
        Kind{"bfloat16_rows_with_master", RowType::kBFloat16, DenseType::kFloat32, true, 1},
        Kind{"bfloat16_all", RowType::kBFloat16, DenseType::kBFloat16, false, 1},
        Kind{"sgd", RowType::kFloat32, DenseType::kFloat32, false, 1, PoolOptimizer::kSgd},
        Kind{"rowwise_adamw", RowType::kBFloat16, DenseType::kFloat32, false, 1,
             PoolOptimizer::kRowwiseAdamW},
        Kind{"rowwise_adamw_without_momentum", RowType::kFloat32, DenseType::kFloat32, false, 1,
             PoolOptimizer::kRowwiseAdamW, 0},
        Kind{"rowwise_adagrad", RowType::kBFloat16, DenseType::kFloat32, true, 1,
             PoolOptimizer::kRowwiseAdagrad},
        Kind{"dense_adamw", RowType::kFloat32, DenseType::kFloat32, false, 1,
             PoolOptimizer::kDenseAdamW},
        Kind{"dense_adamw_two_threads", RowType::kFloat32, DenseType::kFloat32, false, 2,
             PoolOptimizer::kDenseAdamW},
        Kind{"dense_adamw_rounded_stochastically", RowType::kBFloat16, DenseType::kFloat32, false,
             1, PoolOptimizer::kDenseAdamW},
        Kind{"dense_adamw_with_master", RowType::kBFloat16, DenseType::kFloat32, true, 1,
             PoolOptimizer::kDenseAdamW}),
    [](const auto& of) { return std::string(of.param.name); });

}  // namespace
}  // namespace memlayers

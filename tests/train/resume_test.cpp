// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "io/folder.h"
#include "memlayers/trainer.h"
#include "support/altered_rows.h"
#include "support/temp_dir.h"
#include "support/testing.h"
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
  std::string bytes;
  for (const std::string& name : io::posix().list(checkpoint + "/optimizer")) {
    bytes += name;
    // The chunks begin with the name of the run's pool: behind it they are the rows.
    const std::string file = io::read_text(io::posix(), checkpoint + "/optimizer/" + name);
    bytes += name.find('-') == std::string::npos ? file : file.substr(4096);
  }
  return bytes;
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

// As a checkpoint from before data.across_documents could be set has it.
void forget_across_documents(const std::string& checkpoint) {
  std::istringstream lines(testing::read_file(checkpoint + "/training.toml"));
  std::string text, line;
  while (std::getline(lines, line)) {
    if (!line.starts_with("across_documents")) text += line + "\n";
  }
  testing::write_file(checkpoint + "/training.toml", text);
  testing::close_again(checkpoint);
}

TEST(ResumedRun, ReadsPackedDocumentsAsItBegan) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  const auto config = [&](const std::string& out, std::int64_t steps) {
    TrainConfig c = tiny_config(dir / out, dir / "facts.jsonl");
    c.data.pack = true;
    c.train.steps = steps;
    c.train.schedule = Schedule::kConstant;
    return c;
  };
  const auto trained = [](const TrainConfig& c) {
    Trainer trainer(c);
    trainer.run();
    return weights(trainer.model());
  };
  TrainConfig whole = config("whole", 6), parts = config("parts", 3);
  whole.data.across_documents = parts.data.across_documents = true;
  const auto across = trained(whole);
  trained(parts);
  expect_same_bits(across, trained(config("parts", 6)));

  TrainConfig old = config("old", 3);
  old.data.across_documents = true;
  trained(old);
  forget_across_documents(dir / "old/step-3");
  expect_same_bits(across, trained(config("old", 6)));

  // A new run does not; nor does one that is resumed.
  const auto apart = trained(config("apart", 6));
  EXPECT_FALSE(apart[0].second.equal(across[0].second));
  trained(config("stopped", 3));
  expect_same_bits(apart, trained(config("stopped", 6)));
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

// A run of 6 steps with checkpoints at 2, 4 and 6, that is then to go on to 8.
class DamagedCheckpoint : public ::testing::Test {
 protected:
  DamagedCheckpoint() {
    testing::write_facts(dir_ / "facts.jsonl");
    config_ = tiny_config(dir_ / "run", dir_ / "facts.jsonl");
    config_.train.steps = 6;
    config_.train.save_every = 2;
    config_.train.keep = 3;
    Trainer(config_).run();
    config_.train.steps = 8;
  }
  std::string at(int step, const std::string& name) const {
    return dir_ / ("run/step-" + std::to_string(step) + "/" + name);
  }
  void close_again(int step) const {
    testing::close_again(dir_ / ("run/step-" + std::to_string(step)));
  }
  std::string refusal() const {
    return testing::error_of([&] { Trainer(config_).run(); });
  }
  std::string offer() const {
    return "; the one before, " + dir_ / "run/step-4" + ", is complete: --resume " +
           dir_ / "run/step-4";
  }

  TempDir dir_;
  TrainConfig config_;
};

TEST_F(DamagedCheckpoint, MissingOrCutIsNamedAndTheOneBeforeOffered) {
  for (const char* name : {"optimizer/exp_avg-0-6.safetensors", "usage.safetensors",
                           "optimizer/rows.safetensors", "pool/chunk-0-6.safetensors"}) {
    const std::string path = at(6, name), kept = dir_ / "kept";
    std::filesystem::copy_file(path, kept);
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
    EXPECT_TRUE(testing::says(refusal(), {path, " bytes by MANIFEST.json", offer()}));
    std::filesystem::remove(path);
    EXPECT_TRUE(testing::says(refusal(), {path, offer()}));
    std::filesystem::rename(kept, path);
  }
  EXPECT_EQ(Trainer(config_).run().step, 8);
}

TEST_F(DamagedCheckpoint, OfTwoStepsIsNamedAndTheOneBeforeOffered) {
  struct Swap {
    std::string from, to;
  };
  for (const Swap& swap :
       {Swap{"optimizer/exp_avg-0-4.safetensors", "optimizer/exp_avg-0-6.safetensors"},
        Swap{"pool/chunk-0-4.safetensors", "pool/chunk-0-6.safetensors"},
        Swap{"optimizer/rows.safetensors", "optimizer/rows.safetensors"},
        Swap{"optimizer/dense.safetensors", "optimizer/dense.safetensors"},
        Swap{"usage.safetensors", "usage.safetensors"}}) {
    const std::string path = at(6, swap.to), kept = dir_ / "kept";
    std::filesystem::copy_file(path, kept);
    std::filesystem::copy_file(at(4, swap.from), path,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_TRUE(testing::says(refusal(), {path, "by MANIFEST.json", offer()}));
    close_again(6);
    EXPECT_TRUE(testing::says(refusal(), {path, "a file of another step", offer()}));
    std::filesystem::remove(path);
    std::filesystem::rename(kept, path);
    close_again(6);
  }
  EXPECT_EQ(Trainer(config_).run().step, 8);
}

TEST_F(DamagedCheckpoint, WithNumbersThatAreNotFiniteIsNamedAndTheOneBeforeOffered) {
  const std::string weight = "model.layers.0.self_attn.q_proj.weight";
  const std::vector<std::pair<std::string, std::string>> tensors{
      {"model.safetensors", weight},
      {"optimizer/dense.safetensors", "exp_avg." + weight},
      {"optimizer/dense.safetensors", "exp_avg_sq." + weight},
      {"optimizer/dense.safetensors", "steps"},
      {"optimizer/dense.safetensors", "rng"},
      {"optimizer/rows.safetensors", "steps"},
      {"usage.safetensors", "reads"}};
  for (const auto& [file, tensor] : tensors) {
    const std::string path = at(6, file), kept = dir_ / "kept";
    std::filesystem::copy_file(path, kept);
    testing::fill_tensor(path, tensor, 0xff);
    close_again(6);
    EXPECT_TRUE(testing::says(refusal(), {dir_ / "run/step-6", tensor, "expected", offer()}))
        << path;
    std::filesystem::remove(path);
    std::filesystem::rename(kept, path);
  }
  for (const std::string file : {"optimizer/exp_avg", "optimizer/exp_avg_sq", "pool/chunk"}) {
    const std::string path = at(6, file + "-0-6.safetensors"), kept = dir_ / "kept";
    std::filesystem::copy_file(path, kept);
    testing::fill_rows(path, 0xff);
    close_again(6);
    EXPECT_TRUE(testing::says(
        refusal(), {dir_ / "run/step-6", file.substr(file.find('/') + 1), "finite", offer()}))
        << path;
    std::filesystem::remove(path);
    std::filesystem::rename(kept, path);
  }
  close_again(6);
  EXPECT_EQ(Trainer(config_).run().step, 8);
}

TEST_F(DamagedCheckpoint, WithTheOptimizerOfAnotherPoolIsNamed) {
  TrainConfig other = config_;
  other.out = dir_ / "other";
  other.train.steps = 6;
  Trainer(other).run();
  std::filesystem::copy_file(dir_ / "other/step-6/optimizer/exp_avg-0-6.safetensors",
                             at(6, "optimizer/exp_avg-0-6.safetensors"),
                             std::filesystem::copy_options::overwrite_existing);
  close_again(6);
  EXPECT_TRUE(testing::says(refusal(), {at(6, "optimizer"), "exp_avg", "of pool", offer()}));
}

TEST_F(DamagedCheckpoint, TheNewestWholeOneIsOffered) {
  for (const int step : {4, 6}) {
    const std::string path = at(step, "model.safetensors");
    std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  }
  EXPECT_TRUE(testing::says(refusal(), {"the one before, " + dir_ / "run/step-2"}));
}

TEST_F(DamagedCheckpoint, WithoutOneBeforeOffersNothing) {
  std::filesystem::remove_all(dir_ / "run/step-2");
  std::filesystem::remove_all(dir_ / "run/step-4");
  std::filesystem::remove(at(6, "usage.safetensors"));
  const std::string message = refusal();
  EXPECT_TRUE(testing::says(message, {at(6, "usage.safetensors")}));
  EXPECT_EQ(message.find("the one before"), std::string::npos) << message;
}

TEST_F(DamagedCheckpoint, IsSetAsideWhereTheRunGoesOnFromTheOneBefore) {
  std::filesystem::remove(at(6, "usage.safetensors"));
  config_.train.resume = dir_ / "run/step-4";
  EXPECT_EQ(Trainer(config_).run().step, 8);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "run/step-6.damaged/config.json"));
  EXPECT_NO_THROW(io::verify_folder(io::posix(), dir_ / "run/step-6"));
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

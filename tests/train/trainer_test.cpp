// SPDX-License-Identifier: Apache-2.0
#include "memlayers/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "support/temp_dir.h"
#include "train/metrics.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::expect_same_bits;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::tiny_config;
using testing::weights;

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() { testing::write_facts(facts_); }
  TrainConfig config(const std::string& out = "run") { return tiny_config(dir_ / out, facts_); }

  TempDir dir_;
  std::string facts_ = dir_ / "facts.jsonl";
};

std::string error_of(TrainConfig config) {
  try {
    Trainer(std::move(config)).run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<StepMetrics> logged(const std::string& out) {
  return train::RunLog(io::posix(), out, std::numeric_limits<std::int64_t>::max()).metrics();
}

TEST_F(TrainerTest, ReachesAStatedLossOnTinyFacts) {
  TrainConfig c = config();
  c.train.steps = 400;
  c.train.log_every = 100;
  const TrainResult result = Trainer(c).run();
  EXPECT_EQ(result.step, 400);
  // Forty answers of about three tokens, learned by heart; an untrained model has ln(300) = 5.7.
  EXPECT_LT(*result.loss, 0.3);
  EXPECT_EQ(result.checkpoint, c.out + "/step-400");
  EXPECT_EQ(logged(c.out).size(), 4U);
  for (const char* file : {"/metrics.jsonl", "/report.html", "/step-400/config.json",
                           "/step-400/training.toml", "/step-400/trainer.json"}) {
    EXPECT_TRUE(io::posix().exists(c.out + file)) << file;
  }
}

TEST_F(TrainerTest, TrainsADenseTwinWithoutAPool) {
  TrainConfig c = config();
  c.model.memory->layers = std::vector<std::int64_t>{};
  Trainer trainer(c);
  trainer.run();
  EXPECT_TRUE(trainer.model()->pool().is_empty());
  EXPECT_EQ(trainer.prepare().pool_rows, 0);
  EXPECT_EQ(logged(c.out).back().touched_rows, 0);
}

TEST_F(TrainerTest, WithItsPoolInAFileEndsWithTheSameBitsStoppedOrNot) {
  Trainer in_ram(config("ram"));
  in_ram.run();
  const TempDir scratch;
  TrainConfig c = config("file");
  c.train.pool_folder = scratch.path();
  std::atomic<bool> stop = false;
  TrainCallbacks callbacks;
  callbacks.stop = &stop;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) { stop = m.step >= 3; };
  EXPECT_TRUE(Trainer(c, callbacks).run().stopped);
  Trainer in_file(c);
  in_file.run();
  EXPECT_TRUE(in_file.model()->pool()->is_in_file());
  testing::expect_same_bits(weights(in_ram.model()), weights(in_file.model()));
  const auto rows = [](const TrainConfig& config) {  // behind the name of the pool
    const std::string folder = config.out + "/step-8/optimizer/";
    return io::read_text(io::posix(), folder + "rows.safetensors") +
           io::read_text(io::posix(), folder + "exp_avg-0-8.safetensors").substr(4096) +
           io::read_text(io::posix(), folder + "exp_avg_sq-0-8.safetensors").substr(4096);
  };
  EXPECT_EQ(rows(config("ram")), rows(c));
  EXPECT_EQ(io::posix().list(scratch.path()).size(), 0U);
}

TEST_F(TrainerTest, EvaluatesAtIntervalsAndAtTheEnd) {
  TrainConfig c = config();
  c.data.valid = {facts_};
  c.train.eval_every = 3;
  c.train.log_every = 100;
  Trainer(c).run();
  std::vector<std::int64_t> steps;
  for (const StepMetrics& m : logged(c.out)) {
    steps.push_back(m.step);
    ASSERT_TRUE(m.eval_loss);
    EXPECT_LT(*m.eval_loss, 6);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{3, 6, 8}));
}

TEST_F(TrainerTest, CountsEpochsInPassesOverTheData) {
  TrainConfig c = config();
  c.train.steps = {};
  c.train.epochs = 2.5;
  c.train.accumulate = 2;
  Trainer trainer(c);
  const TrainSetup& setup = trainer.prepare();
  EXPECT_GT(setup.batches_per_epoch, 1);
  EXPECT_NEAR(static_cast<double>(setup.total_steps),
              2.5 * static_cast<double>(setup.batches_per_epoch) / 2, 1.5);
  trainer.run();
  EXPECT_NEAR(logged(c.out).back().epoch, 2.5, 0.5);
}

TEST_F(TrainerTest, KeepsTheNewestCheckpointsOnly) {
  TrainConfig c = config();
  c.train.save_every = 2;
  c.train.keep = 2;
  Trainer(c).run();
  EXPECT_EQ(list_checkpoints(c.out),
            (std::vector<std::string>{c.out + "/step-6", c.out + "/step-8"}));
}

TEST_F(TrainerTest, SavesAndLeavesOnAStopRequestAndGoesOnLater) {
  TrainConfig c = config();
  std::atomic<bool> stop = false;
  TrainCallbacks callbacks;
  callbacks.stop = &stop;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) { stop = m.step >= 3; };
  const TrainResult first = Trainer(c, callbacks).run();
  EXPECT_TRUE(first.stopped);
  EXPECT_EQ(first.checkpoint, c.out + "/step-4");
  const TrainResult second = Trainer(c).run();
  EXPECT_FALSE(second.stopped);
  EXPECT_EQ(second.step, 8);
}

TEST_F(TrainerTest, SaysSoWhereAllStepsAreDone) {
  const TrainConfig c = config();
  Trainer(c).run();
  const std::string before = io::read_text(io::posix(), c.out + "/metrics.jsonl");
  std::string notice;
  TrainCallbacks callbacks;
  callbacks.notice = [&](const std::string& text) { notice = text; };
  const TrainResult again = Trainer(c, callbacks).run();
  EXPECT_TRUE(again.already_done);
  EXPECT_EQ(again.checkpoint, c.out + "/step-8");
  EXPECT_THAT(notice, HasSubstr("all of the 8 steps"));
  EXPECT_EQ(io::read_text(io::posix(), c.out + "/metrics.jsonl"), before);
}

TEST_F(TrainerTest, SkipsAndCountsAStepThatIsNotFinite) {
  TrainConfig c = config();
  Trainer* running = nullptr;
  std::vector<std::pair<std::string, at::Tensor>> before;
  at::Tensor good;
  TrainCallbacks callbacks;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) {
    const torch::NoGradGuard no_grad;
    at::Tensor norm = running->model()->dense_parameters().back().second;
    if (m.step == 3) {  // NaN in steps 4 and 5
      before = weights(running->model());
      good = norm.clone();
      norm.fill_(std::numeric_limits<float>::quiet_NaN());
    } else if (m.step == 5) {
      EXPECT_EQ(m.bad_steps, 2);
      EXPECT_TRUE(std::isnan(m.loss));
      norm.copy_(good);
      auto after = weights(running->model());
      before.pop_back();  // reads are counted in a bad step, too
      after.pop_back();
      expect_same_bits(before, after);
    }
  };
  Trainer trainer(c, callbacks);
  running = &trainer;
  const TrainResult result = trainer.run();
  EXPECT_EQ(result.step, 8);
  EXPECT_TRUE(std::isfinite(*result.loss));
  EXPECT_EQ(logged(c.out).back().bad_steps, 2);
}

TEST_F(TrainerTest, GivesUpAfterBadStepsInARowAndKeepsTheLastGoodCheckpoint) {
  TrainConfig c = config();
  c.train.save_every = 3;
  c.train.max_bad_steps = 2;
  Trainer* running = nullptr;
  TrainCallbacks callbacks;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) {
    const torch::NoGradGuard no_grad;
    if (m.step != 3) return;
    running->model()->pool()->values.fill_(std::numeric_limits<float>::infinity());
  };
  Trainer trainer(c, callbacks);
  running = &trainer;
  try {
    trainer.run();
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 5"));
    EXPECT_THAT(error.what(), HasSubstr("max_bad_steps"));
    EXPECT_THAT(error.what(), HasSubstr(c.out + "/step-3"));
  }
  EXPECT_EQ(list_checkpoints(c.out), std::vector<std::string>{c.out + "/step-3"});
  c.train.max_bad_steps = 20;
  EXPECT_EQ(Trainer(c).run().step, 8);
}

TEST_F(TrainerTest, NamesTheFieldInWhichAResumedModelDiffers) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  c.train.steps = 4;
  TrainConfig other = c;
  other.model.ff_dim = 64;
  EXPECT_THAT(error_of(other), HasSubstr("model.ff_dim: 64"));
  other = c;
  other.model.memory->n_keys = 12;
  EXPECT_THAT(error_of(other), HasSubstr("memory.n_keys: 12"));
  other = c;
  other.train.lr = 1e-4;  // not a matter of the model
  EXPECT_EQ(error_of(other), "no error");
}

TEST_F(TrainerTest, RefusesAnotherTokenizerThanTheCheckpoints) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  TrainConfig other = config("other");
  other.model.vocab_size = 290;
  other.train.steps = 1;
  Trainer(other).run();
  c.train.steps = 4;
  c.data.tokenizer = other.out + "/step-1";
  EXPECT_THAT(error_of(c), HasSubstr("data.tokenizer"));
  c.data.tokenizer = c.out + "/step-2";
  EXPECT_EQ(error_of(c), "no error");
}

TEST_F(TrainerTest, NeverOverwritesACompleteCheckpoint) {
  TrainConfig c = config();
  c.train.save_every = 4;
  Trainer(c).run();
  TrainConfig again = c;
  again.train.resume = "never";
  EXPECT_THAT(error_of(again), HasSubstr("step-8 is a complete checkpoint"));
  again.train.resume = c.out + "/step-4";
  EXPECT_THAT(error_of(again), HasSubstr("step-8 is a later complete checkpoint"));
}

TEST_F(TrainerTest, ResumesFromAFolderNamed) {
  TrainConfig c = config();
  c.train.save_every = 4;
  Trainer first(c);
  first.run();
  TrainConfig other = config("other");
  other.train.resume = c.out + "/step-4";
  Trainer second(other);
  const TrainResult result = second.run();
  EXPECT_EQ(result.checkpoint, other.out + "/step-8");
  expect_same_bits(weights(first.model()), weights(second.model()));

  other.train.resume = dir_ / "nothing";
  EXPECT_THAT(error_of(other), HasSubstr("train.resume"));
  other.train.resume = dir_.path();
  EXPECT_THAT(error_of(other), HasSubstr("neither a complete checkpoint"));
}

TEST_F(TrainerTest, StartsFromTheWeightsOfAnInitFolder) {
  TrainConfig c = config();
  Trainer first(c);
  first.run();
  TrainConfig next = config("next");
  next.init = c.out;
  Trainer second(next);
  second.prepare();
  auto before = weights(first.model()), after = weights(second.model());
  before.pop_back();  // usage begins anew
  after.pop_back();
  expect_same_bits(before, after);
  EXPECT_EQ(second.tokenizer().file_bytes(), first.tokenizer().file_bytes());
  EXPECT_EQ(second.prepare().first_step, 0);
}

TEST_F(TrainerTest, RefusesADamagedCheckpoint) {
  TrainConfig c = config();
  c.train.steps = 2;
  Trainer(c).run();
  const std::string path = c.out + "/step-2/optimizer/dense.safetensors";
  const auto file = io::posix().open(path, io::OpenMode::kReadWrite);
  const std::byte flipped[] = {std::byte{0x5a}};
  file->pwrite(flipped, file->size() - 3);
  c.train.steps = 4;
  EXPECT_THAT(error_of(c), HasSubstr("dense.safetensors"));
}

TEST_F(TrainerTest, WritesSamplesAndRefusesAPromptLongerThanTheContext) {
  TrainConfig c = config();
  c.train.sample_every = 4;
  c.train.sample_prompts = {"the red otter has number", "the blue comet has number"};
  std::vector<TrainSample> seen;
  TrainCallbacks callbacks;
  callbacks.sample = [&](const TrainSample& sample) { seen.push_back(sample); };
  Trainer(c, callbacks).run();
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_EQ(seen[3].step, 8);
  EXPECT_EQ(seen[3].prompt, c.train.sample_prompts[1]);
  EXPECT_THAT(io::read_text(io::posix(), c.out + "/report.html"), HasSubstr("the blue comet"));

  c.out = dir_ / "long";
  c.train.sample_prompts = {std::string(500, 'x')};
  EXPECT_THAT(error_of(c), HasSubstr("train.sample_prompts"));
}

TEST_F(TrainerTest, RefusesATokenizerWithMoreTokensThanTheModel) {
  TrainConfig c = config();
  c.train.steps = 1;
  Trainer(c).run();
  TrainConfig small = config("small");
  small.data.tokenizer = c.out + "/step-1";
  small.model.vocab_size = 280;
  EXPECT_THAT(error_of(small), HasSubstr("model.vocab_size: 280"));
}

}  // namespace
}  // namespace memlayers

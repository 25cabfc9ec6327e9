// SPDX-License-Identifier: Apache-2.0
#include "memlayers/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"
#include "train/trainer_testing.h"

namespace memlayers {
namespace {

using testing::error_of_training;
using testing::expect_same_bits;
using ::testing::HasSubstr;
using testing::logged;
using testing::TempDir;
using testing::tiny_config;
using testing::TrainerTest;
using testing::weights;

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

// A prompt that fills the context alone, and so leaves nothing of its answer.
std::string long_fact() {
  std::string words;
  for (int i = 0; i < 60; ++i) words += "otter ";
  return R"({"prompt": ")" + words + R"(", "answer": "red"})" + "\n";
}

TEST_F(TrainerTest, RefusesDataOfWhichTheContextLeavesNothingToPredict) {
  const std::string data = dir_ / "long.jsonl";
  io::write_atomic(io::posix(), data, long_fact() + long_fact());
  TrainConfig c = config();
  c.data.train = {data};
  c.model.vocab_size = 270;  // there is no more in these words
  EXPECT_THAT(error_of_training(c),
              HasSubstr("data.train: expected a document with a token to predict "
                        "within the context of 48 tokens, got none of 2 documents"));
  EXPECT_FALSE(io::posix().exists(c.out + "/step-8"));
  c = config("valid");
  c.data.valid = {data};
  EXPECT_THAT(error_of_training(c),
              HasSubstr("data.valid: expected a document with a token to predict"));
}

TEST_F(TrainerTest, CountsDocumentsThatTheContextCuts) {
  const std::string data = dir_ / "mixed.jsonl";
  io::write_atomic(io::posix(), data, io::read_text(io::posix(), facts_) + long_fact());
  TrainConfig c = config();
  c.data.train = {data};
  std::string notices;
  TrainCallbacks callbacks;
  callbacks.notice = [&](const std::string& text) { notices += text + "\n"; };
  Trainer(c, callbacks).prepare();
  EXPECT_THAT(notices, HasSubstr("data.train: 1 of 41 documents are longer than the context"));
  EXPECT_THAT(notices, HasSubstr("1 of 41 documents have no token to predict (the first: "
                                 "document 41)"));
}

TEST_F(TrainerTest, AStepWithNothingToPredictHasNoLoss) {
  const std::string data = dir_ / "mixed.jsonl";
  std::string text = io::read_text(io::posix(), facts_);
  for (int i = 0; i < 40; ++i) text += long_fact();
  io::write_atomic(io::posix(), data, text);
  TrainConfig c = config();
  c.data.train = {data};
  c.train.batch_tokens = 48;  // one long fact fills a batch
  c.train.steps = 40;
  const TrainResult result = Trainer(c).run();
  EXPECT_GT(result.loss.value(), 0.5) << "of the last step that had one";
  std::int64_t silent = 0;
  for (const StepMetrics& m : logged(c.out)) {
    silent += std::isnan(m.loss);
    EXPECT_TRUE(std::isnan(m.loss) || m.loss > 0) << m.step;
    EXPECT_EQ(m.bad_steps, 0);
  }
  EXPECT_GT(silent, 5);
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

TEST_F(TrainerTest, ASecondTrainingInTheFolderIsRefusedAndNamesTheFirst) {
  TrainConfig c = config();
  c.train.log_every = 1;
  std::string error;
  TrainCallbacks callbacks;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) {
    if (m.step != 2) return;
    try {
      Trainer(c).run();
    } catch (const Error& caught) {
      error = caught.what();
    }
  };
  Trainer first(c, callbacks);
  const std::int64_t step = first.run().step;
  EXPECT_THAT(error, HasSubstr(c.out + ": expected no other training"));
  EXPECT_THAT(error, HasSubstr("process " + std::to_string(::getpid())));
  EXPECT_EQ(static_cast<std::int64_t>(logged(c.out).size()), step);
  EXPECT_TRUE(Trainer(c).run().already_done) << "the first one is over, though it still lives";
}

TEST_F(TrainerTest, ThatIsPreparedOnlyLeavesNoFolder) {
  TrainConfig c = config();
  c.data.cache = dir_ / "cache";
  Trainer(c).prepare();
  EXPECT_FALSE(io::posix().exists(c.out));
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
  EXPECT_THAT(error_of_training(c), HasSubstr("train.sample_prompts"));
}

TEST_F(TrainerTest, SamplesSayWhatACheckpointOfTheirStepSays) {
  TrainConfig c = config();
  c.train.steps = 60;
  c.train.sample_every = c.train.save_every = 20;
  c.train.keep = 9;
  c.train.sample_prompts = {"the red otter has number", "the blue comet has number"};
  TrainCallbacks callbacks;
  std::vector<TrainSample> seen;
  callbacks.sample = [&](const TrainSample& sample) { seen.push_back(sample); };
  Trainer(c, callbacks).run();
  for (const TrainSample& sample : seen) {
    Generator generator = Generator::load(c.out + "/step-" + std::to_string(sample.step));
    GenerateOptions options;
    options.max_tokens = 48;
    EXPECT_EQ(generator.generate({sample.prompt}, options)[0].text, sample.text)
        << "step " << sample.step;
  }
  EXPECT_EQ(seen.size(), 6U);
}

TEST_F(TrainerTest, RefusesATokenizerWithMoreTokensThanTheModel) {
  TrainConfig c = config();
  c.train.steps = 1;
  Trainer(c).run();
  TrainConfig small = config("small");
  small.data.tokenizer = c.out + "/step-1";
  small.model.vocab_size = 280;
  EXPECT_THAT(error_of_training(small), HasSubstr("model.vocab_size: 280"));
}

}  // namespace
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
// Steps whose numbers are not finite.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "memlayers/checkpoint.h"
#include "train/trainer_testing.h"

namespace memlayers {
namespace {

using testing::expect_same_bits;
using ::testing::HasSubstr;
using testing::logged;
using testing::TrainerTest;
using testing::weights;

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

TEST_F(TrainerTest, SavesNothingThatIsNotFiniteAndKeepsTheLastGoodCheckpoint) {
  TrainConfig c = config();
  c.train.save_every = 3;
  // A weight, and a row, that no step has seen when it is to be saved.
  for (const bool is_row : {false, true}) {
    c.out = dir_ / (is_row ? "row" : "weight");
    Trainer* running = nullptr;
    TrainCallbacks callbacks;
    callbacks.logged = [&](const StepMetrics& m) {
      const torch::NoGradGuard no_grad;
      if (m.step != 6) return;
      Llama& model = running->model();
      at::Tensor number = is_row ? model->pool()->values : model->dense_parameters()[2].second;
      number.view(-1)[5] = std::numeric_limits<float>::infinity();
    };
    Trainer trainer(c, callbacks);
    running = &trainer;
    try {
      trainer.run();
      FAIL() << "expected an Error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("step 6 is not saved"));
      EXPECT_THAT(error.what(),
                  HasSubstr(is_row ? "chunk-0-6.safetensors: expected finite numbers to write"
                                   : trainer.model()->dense_parameters()[2].first));
      EXPECT_THAT(error.what(), HasSubstr("the last checkpoint is " + c.out + "/step-3"));
    }
    EXPECT_EQ(list_checkpoints(c.out), std::vector<std::string>{c.out + "/step-3"});
    for (const std::string& name : io::posix().list(c.out)) {
      EXPECT_FALSE(name.starts_with("step-6")) << name;
    }
    EXPECT_EQ(Trainer(c).run().step, 8);
  }
}

TEST_F(TrainerTest, ThatEndsWithStepsThatAreNotFiniteIsAnErrorAndKeepsTheWeightsBeforeThem) {
  TrainConfig c = config();
  Trainer* running = nullptr;
  std::vector<std::pair<std::string, at::Tensor>> before;
  at::Tensor good;
  TrainCallbacks callbacks;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) {
    const torch::NoGradGuard no_grad;
    if (m.step == 6) {
      before = weights(running->model());
      good = running->model()->dense_parameters().back().second.clone();
    }
    if (m.step >= 6) {  // far too large, but finite: steps 7 and 8 overflow
      running->model()->dense_parameters().back().second.fill_(std::numeric_limits<float>::max());
    }
  };
  callbacks.logged = [&](const StepMetrics& m) {
    const torch::NoGradGuard no_grad;
    if (m.step == 8) running->model()->dense_parameters().back().second.copy_(good);
  };
  Trainer trainer(c, callbacks);
  running = &trainer;
  try {
    trainer.run();
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("step 8: loss or gradient was not finite in the last 2"));
    EXPECT_THAT(error.what(), HasSubstr(c.out + "/step-8"));
  }
  Llama saved = load_model(c.out + "/step-8");
  before.pop_back();
  auto after = weights(saved);
  after.pop_back();  // reads
  expect_same_bits(before, after);
}

}  // namespace
}  // namespace memlayers

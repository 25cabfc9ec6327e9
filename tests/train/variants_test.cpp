// SPDX-License-Identifier: Apache-2.0
// Whole trainings of the kinds of decoders that others do not train: stopped and resumed, then
// taught, explained and patched.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <atomic>
#include <functional>
#include <string>

#include "memlayers/edit.h"
#include "memlayers/explain.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/trainer_testing.h"

namespace memlayers {
namespace {

using testing::expect_same_bits;
using testing::TempDir;
using testing::weights;

struct Kind {
  const char* name;
  std::function<void(ModelConfig&)> change;
};

void use_ngrams(ModelConfig& model) {
  model.memory->variant = MemoryVariant::kNgram;
  model.memory->knn = 2;
}

class Variants : public ::testing::TestWithParam<Kind> {};

TEST_P(Variants, LearnAndResumeBitForBit) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  const auto config = [&](const std::string& out) {
    TrainConfig c = testing::tiny_config(dir / out, dir / "facts.jsonl");
    GetParam().change(c.model);
    c.train.accumulate = 2;
    return c;
  };
  Trainer whole(config("whole"));
  whole.run();
  std::atomic<bool> stop = false;
  TrainCallbacks callbacks;
  callbacks.stop = &stop;
  callbacks.step = [&](const StepMetrics& m, std::int64_t) { stop = m.step >= 2; };
  EXPECT_EQ(Trainer(config("parts"), callbacks).run().step, 3);
  Trainer parts(config("parts"));
  parts.run();
  expect_same_bits(weights(whole.model()), weights(parts.model()));
  const auto metrics = testing::logged(dir / "whole");
  EXPECT_LT(metrics.back().loss, metrics.front().loss);
}
INSTANTIATE_TEST_SUITE_P(
    Kinds, Variants,
    ::testing::Values(Kind{"experts", [](ModelConfig& c) { c.experts = 3; }},
                      Kind{"ngrams", use_ngrams},
                      Kind{"frozen_keys", [](ModelConfig& c) { c.memory->frozen_keys = true; }}),
    [](const auto& kind) { return std::string(kind.param.name); });

TEST(FrozenKeys, AreAfterTrainingWhatTheyWereBefore) {
  const TempDir dir;
  testing::write_facts(dir / "facts.jsonl");
  TrainConfig config = testing::tiny_config(dir / "run", dir / "facts.jsonl");
  config.model.memory->frozen_keys = true;
  Trainer trainer(config);
  trainer.prepare();
  const auto keys = [&] {
    return trainer.model()->memory_layers()[0].second->keys.detach().clone();
  };
  const at::Tensor before = keys();
  const at::Tensor rows = trainer.model()->pool()->values.detach().clone();
  trainer.run();
  EXPECT_TRUE(torch::equal(keys(), before));
  EXPECT_FALSE(torch::equal(trainer.model()->pool()->values, rows));
}

TEST(NgramMemory, IsTaughtExplainedAndTakenBackAsAnyOther) {
  ModelConfig config = testing::tiny_model_config();
  use_ngrams(config);
  config.memory->n_keys = 16;
  config.memory->placement = MemoryPlacement::kBeside;  // so that there is a penalty
  Generator generator = testing::tiny_generator(config);
  const MemoryPool pool = generator.model()->pool();
  const at::Tensor rows = pool->values.detach().clone();
  const std::vector<NewFact> facts{{.fact = {"the red otter has", "number two"}},
                                   {.fact = {"the blue maple has", "the lantern"}}};
  const LearnResult result = learn(generator, facts, {.lr = 1e-2, .penalty = 0.01},
                                   {.reads = torch::ones({pool->slots()}, torch::kLong)});
  EXPECT_GE(result.recalled, 1);
  ASSERT_FALSE(result.patch.slots.empty());
  const Explanation explanation = explain(generator, "the red otter has", "number two");
  EXPECT_GT(explanation.slots_read, 0);
  ASSERT_FALSE(explanation.slots.empty());
  at::Tensor changed = (pool->values.detach() != rows).any(1).nonzero().flatten();
  EXPECT_EQ(changed.numel(), static_cast<std::int64_t>(result.patch.slots.size()));
}

}  // namespace
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/explain.h"

#include <gtest/gtest.h>

#include <map>

#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::says;
using testing::TempDir;
using testing::tiny_generator;

const std::string kPrompt = "the red otter has", kAnswer = "number two";
constexpr std::int64_t kAll = 1000;  // more slots than there are

// Two layers that read one pool.
ModelConfig two_layers(RowType type = RowType::kFloat32) {
  ModelConfig config = testing::tiny_model_config();
  config.memory->layers = std::vector<std::int64_t>{0, 1};
  config.memory->row_dtype = type;
  return config;
}

double log_probability(Generator& generator) {
  generator.model()->pool()->refresh();
  return -evaluate_facts(generator, {{kPrompt, kAnswer}}).facts[0].nll;
}

class Served : public ::testing::Test {
 protected:
  Generator serve(const ModelConfig& config) {
    Generator made = tiny_generator(config);
    save_model(made.model(), dir_.path());
    return {open_model(dir_.path()), testing::tiny_tokenizer()};
  }
  Store store() const { return Store::open(dir_ / "pool"); }
  TempDir dir_;
};

class ServedRows : public Served, public ::testing::WithParamInterface<int> {};

TEST_P(ServedRows, TheChangeIsThatOfAPatchThatErasesTheRow) {
  ModelConfig config = two_layers(GetParam() == 1 ? RowType::kInt8 : RowType::kFloat32);
  if (GetParam() == 2) {
    config.memory->variant = MemoryVariant::kPeer;
    config.memory->layers = std::vector<std::int64_t>{1};
  }
  Generator generator = serve(config);
  const Explanation explanation = explain(generator, kPrompt, kAnswer, {.top = 6});
  const double whole = log_probability(generator);
  EXPECT_NEAR(explanation.log_probability, whole, 1e-4);
  ASSERT_EQ(explanation.slots.size(), 6U);
  Store edited = store();
  double largest = 0;
  for (const ExplainedSlot& slot : explanation.slots) {
    const Snapshot now = edited.snapshot();
    const Patch without{.id = new_patch_id(),
                        .pool = now.pool_id(),
                        .width = now.width(),
                        .row_dtype = now.row_dtype(),
                        .erased = {slot.slot}};
    edited.apply(without);
    const double change = log_probability(generator) - whole;
    EXPECT_NEAR(slot.change, change, 1e-3 + 1e-3 * std::abs(change)) << "slot " << slot.slot;
    largest = std::max(largest, std::abs(change));
    edited.rollback(without.id);
  }
  EXPECT_GT(largest, 0.01) << "slots that change nothing would test nothing";
  EXPECT_NEAR(std::abs(explanation.slots.front().change), largest, 1e-3 + 1e-3 * largest);
}
INSTANTIATE_TEST_SUITE_P(Kinds, ServedRows, ::testing::Values(0, 1, 2));

TEST(Explain, TheWeightsOfAHeadSumToOneForEachTokenOfTheAnswer) {
  Generator generator = tiny_generator(two_layers());
  const Explanation explanation = explain(generator, kPrompt, kAnswer, {.top = kAll});
  EXPECT_EQ(static_cast<std::int64_t>(explanation.slots.size()), explanation.slots_read);
  std::map<std::tuple<std::int64_t, std::int64_t, std::size_t>, double> sums;
  for (const ExplainedSlot& slot : explanation.slots) {
    double weight = 0;
    for (const SlotRead& read : slot.reads) {
      weight += read.weight;
      for (std::size_t i = 0; i < read.by_token.size(); ++i) {
        sums[{read.layer, read.head, i}] += read.by_token[i];
      }
    }
    EXPECT_NEAR(slot.weight, weight, 1e-6);
    EXPECT_FALSE(slot.patch) << "of a model in memory none is known";
  }
  EXPECT_EQ(sums.size(), 2 * 2 * explanation.tokens.size());
  for (const auto& [key, sum] : sums) EXPECT_NEAR(sum, 1, 1e-5);
}

TEST(Explain, AModelsOwnAnswerIsTheOneItGenerates) {
  Generator generator = tiny_generator();
  const Explanation own = explain(generator, kPrompt, {}, {.max_tokens = 5});
  const Generation generated = generator.generate({kPrompt}, {.max_tokens = 5})[0];
  EXPECT_TRUE(own.is_own);
  EXPECT_EQ(own.answer, testing::tiny_tokenizer()->decode(generated.tokens));
  EXPECT_EQ(own.tokens.size(),
            generated.tokens.size() + (generated.finish == FinishReason::kStop ? 1 : 0));
  EXPECT_FALSE(explain(generator, kPrompt, kAnswer).is_own);
}

TEST_F(Served, ThePatchThatWroteARowIsNamed) {
  Generator generator = serve(two_layers());
  const Explanation before = explain(generator, kPrompt, kAnswer, {.top = kAll});
  Store edited = store();
  const std::int64_t slot = before.slots[0].slot;
  const Snapshot now = edited.snapshot();
  Patch patch{.id = "p", .pool = now.pool_id(), .width = now.width(), .slots = {slot}};
  patch.rows.resize(static_cast<std::size_t>(now.row_bytes()));
  now.read_rows(patch.slots, patch.rows);
  edited.apply(patch);
  for (const ExplainedSlot& found : explain(generator, kPrompt, kAnswer, {.top = kAll}).slots) {
    EXPECT_EQ(found.patch.value_or(""), found.slot == slot ? "p" : "") << found.slot;
  }
}

TEST(Explain, PromptsAreThoseWhoseLastPositionReadsTheSlot) {
  Generator generator = tiny_generator();
  const Explanation explanation =
      explain(generator, kPrompt, kAnswer, {.top = kAll, .prompts = {"a green comet", kPrompt}});
  int used = 0;
  for (const ExplainedSlot& slot : explanation.slots) {
    // The prompt's last position is where the answer's first token is predicted.
    bool is_read = false;
    for (const SlotRead& read : slot.reads) is_read = is_read || read.by_token[0] > 0;
    EXPECT_EQ(std::ranges::find(slot.prompts, 1) != slot.prompts.end(), is_read) << slot.slot;
    used += is_read ? 1 : 0;
  }
  EXPECT_GT(used, 0);
  EXPECT_LT(used, static_cast<int>(explanation.slots.size()));
}

TEST(Explain, ThePictureHasARowForEachSlotAndEscapesTheAnswer) {
  const Explanation explanation{
      .answer = "a<b & \"c\"",
      .tokens = {"a<b", ""},
      .slots = {{.slot = 17, .change = -2, .patch = "p1", .reads = {{1, 0, 0.75, {0.5, 0.25}}}},
                {.slot = 23, .change = 0.5, .reads = {{1, 1, 0.25, {0, 0.25}}}}}};
  const std::string svg = explanation_svg(explanation);
  EXPECT_TRUE(
      says(svg, {"a&lt;b &amp; &quot;c&quot;", ">17  layer 1 head 0<", ">23  layer 1 head 1<",
                 "written by patch p1", ">end<", "fill-opacity=\"0.5\"", "</svg>"}));
  EXPECT_EQ(svg.find("a<b"), std::string::npos);
}

TEST(Explain, WhatCannotBeExplainedIsRefused) {
  ModelConfig dense = testing::tiny_model_config();
  dense.memory.reset();
  Generator without = tiny_generator(dense), generator = tiny_generator();
  EXPECT_TRUE(says(error_of([&] { explain(without, kPrompt); }), {"without a pool"}));
  EXPECT_TRUE(says(error_of([&] { explain(generator, kPrompt, kAnswer, {.top = 0}); }), {"top"}));
  EXPECT_TRUE(
      says(error_of([&] { explain(generator, kPrompt, {}, {.max_tokens = 0}); }), {"max_tokens"}));
  std::string endless;
  for (int i = 0; i < 30; ++i) endless += "the lantern ";
  EXPECT_TRUE(says(error_of([&] { explain(generator, kPrompt, endless); }), {"context"}));
  EXPECT_TRUE(says(error_of([&] { explain(generator, kPrompt, kAnswer, {.prompts = {endless}}); }),
                   {"earlier prompt", "context"}));
}

TEST(ReadPrompts, ReadsTheLinesOfALogAndNamesABrokenOne) {
  const TempDir dir;
  const std::string path = dir / "log.jsonl";
  testing::write_file(path, "{\"prompt\": \"a\", \"time\": 3}\n\n{\"prompt\": \"b\"}\n");
  EXPECT_EQ(read_prompts(path), (std::vector<std::string>{"a", "b"}));
  testing::write_file(path, "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n");
  EXPECT_TRUE(says(error_of([&] { read_prompts(path); }), {path + ":2", "prompt"}));
  testing::write_file(path, "\n");
  EXPECT_TRUE(says(error_of([&] { read_prompts(path); }), {path, "prompt"}));
}

}  // namespace
}  // namespace memlayers

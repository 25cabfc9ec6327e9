// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "edit/phrasings.h"
#include "edit/slot_reads.h"
#include "memlayers/edit.h"
#include "nn/lookup_hook.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/fact_batch.h"
#include "train/fact_row.h"

namespace memlayers {
namespace {

ModelConfig config_of() {
  ModelConfig config = testing::tiny_model_config();
  config.memory->n_keys = 16;
  return config;
}

std::vector<NewFact> new_facts() {
  return {{.fact = {"the red otter has", "number two"}, .paraphrases = {"red otter:"}},
          {.fact = {"the blue maple has", "the lantern"}}};
}

// Every slot was read once.
SlotHistory flat_history(Generator& generator) {
  return {.reads = torch::ones({generator.model()->pool()->slots()}, torch::kLong)};
}

void expect_error(const std::function<void()>& act, std::initializer_list<std::string> parts) {
  EXPECT_TRUE(testing::says(testing::error_of(act), parts));
}

// Of each slot the sum of the weights by which the new facts read it.
std::vector<double> masses(Generator& generator) {
  std::vector<train::FactRow> rows;
  std::vector<const train::FactRow*> all;
  for (const Fact& fact : edit::learned_phrasings(new_facts())) {
    rows.push_back(train::make_fact_row(generator, fact));
  }
  for (const train::FactRow& row : rows) all.push_back(&row);
  std::vector<double> mass(generator.model()->pool()->slots());
  const nn::LookupHook hook(
      [&](const MemoryLayerImpl&, const at::Tensor& slots, const at::Tensor& weights) {
        const at::Tensor read = slots.flatten(), by = weights.detach().flatten();
        for (std::int64_t i = 0; i < read.numel(); ++i) {
          mass[read[i].item<std::int64_t>()] += by[i].item<double>();
        }
      });
  const train::Batch batch = train::batch_of(all, /*shares_prefix=*/true);
  const torch::NoGradGuard no_gradient;
  generator.model()->hidden_states(batch.input, batch.packed);
  return mass;
}

TEST(ChooseSlots, CoverTheShareOfWhatIsReadThatIsAskedFor) {
  Generator generator = testing::tiny_generator(config_of());
  const std::vector<double> mass = masses(generator);
  const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
  const SlotHistory history = flat_history(generator);
  const std::int64_t all = generator.model()->pool()->slots();
  const std::size_t read = choose_slots(generator, new_facts(), {.slots = all}, history).size();
  for (const double coverage : {0.3, 0.9}) {
    const LearnOptions options{.slots = all, .coverage = coverage};
    double covered = 0, least = total;
    std::vector<bool> is_chosen(mass.size());
    const auto chosen = choose_slots(generator, new_facts(), options, history);
    for (const ChosenSlot& slot : chosen) {
      is_chosen[slot.slot] = true;
      covered += mass[slot.slot];
      least = std::min(least, mass[slot.slot]);
    }
    EXPECT_LT(chosen.size(), read);
    EXPECT_GE(covered, coverage * total * (1 - 1e-6));
    EXPECT_LT(covered - least, coverage * total * (1 + 1e-6)) << "no more than are needed";
    for (std::size_t slot = 0; slot < mass.size(); ++slot) {
      if (is_chosen[slot]) continue;
      EXPECT_LE(mass[slot], least * (1 + 1e-6)) << slot;
    }
  }
}

TEST(ChooseSlots, LeavesOutWhatTheChatTemplateReads) {
  Generator generator = testing::tiny_generator(config_of());
  EXPECT_TRUE(edit::template_reads(generator).empty());
  generator.ask_by(ChatShape{
      ChatTemplate(generator.tokenizer(), "chat", "so it was {{ messages[0].content }} and then")});
  const std::vector<std::int64_t> barred = edit::template_reads(generator);
  ASSERT_FALSE(barred.empty());
  const LearnOptions options{.slots = generator.model()->pool()->slots()};
  const auto chosen = choose_slots(generator, new_facts(), options, flat_history(generator));
  EXPECT_GT(chosen.size(), 3U);
  for (const ChosenSlot& slot : chosen) {
    EXPECT_FALSE(std::ranges::binary_search(barred, slot.slot)) << slot.slot;
  }
}

TEST(ChooseSlots, RanksByTheFormulaOfEachSelection) {
  Generator generator = testing::tiny_generator(config_of());
  const std::int64_t slots = generator.model()->pool()->slots();
  const SlotHistory history{.reads = torch::arange(slots, torch::kLong)};
  const double N = static_cast<double>(slots * (slots - 1)) / 2, S = static_cast<double>(slots);
  for (const SlotSelection selection : {SlotSelection::kTfIdf, SlotSelection::kKl}) {
    const LearnOptions options{.selection = selection, .slots = slots};
    const auto chosen = choose_slots(generator, new_facts(), options, history);
    ASSERT_GT(chosen.size(), 10U);
    std::vector<train::FactRow> rows;
    std::vector<const train::FactRow*> all;
    for (const Fact& fact : edit::learned_phrasings(new_facts())) {
      rows.push_back(train::make_fact_row(generator, fact));
    }
    for (const train::FactRow& row : rows) all.push_back(&row);
    const train::Batch packed = train::batch_of(all, /*shares_prefix=*/true);
    EXPECT_GT(packed.packed.prefix, 0) << "or this test does not see that it is read once";
    // heads, knn; one layer
    const double total = static_cast<double>(packed.input.size(1)) * 2 * 3;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const double tf = static_cast<double>(chosen[i].reads) / total;
      const double n = static_cast<double>(chosen[i].slot);
      EXPECT_EQ(chosen[i].reads_before, chosen[i].slot);
      EXPECT_NEAR(chosen[i].score,
                  selection == SlotSelection::kKl ? tf * std::log(tf / ((n + 1) / (N + S)))
                                                  : tf * std::log((N + 1) / (n + 1)),
                  1e-12);
      if (i > 0) {
        EXPECT_GE(chosen[i - 1].score, chosen[i].score);
      }
    }
  }
}

TEST(ChooseSlots, GuardedLeavesPatchedSlotsAlone) {
  Generator generator = testing::tiny_generator(config_of());
  SlotHistory history = flat_history(generator);
  const LearnOptions few{.selection = SlotSelection::kGuarded, .slots = 5};
  const auto chosen = choose_slots(generator, new_facts(), few, history);
  ASSERT_EQ(chosen.size(), 5U);
  for (const ChosenSlot& slot : chosen) history.patched.push_back(slot.slot);
  for (const ChosenSlot& slot : choose_slots(generator, new_facts(), few, history)) {
    for (const ChosenSlot& taken : chosen) EXPECT_NE(slot.slot, taken.slot);
  }
  const auto all = choose_slots(generator, new_facts(), {.slots = 5}, history);  // not guarded
  EXPECT_EQ(all.front().slot, chosen.front().slot);
  history.patched.resize(generator.model()->pool()->slots());
  std::iota(history.patched.begin(), history.patched.end(), 0);
  expect_error([&] { choose_slots(generator, new_facts(), few, history); }, {"found none"});
}

}  // namespace
}  // namespace memlayers

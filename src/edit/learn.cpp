// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <cmath>

#include "edit/chosen_rows.h"
#include "edit/subjects.h"
#include "edit/teach.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

void expect(bool holds, const std::string& field, const std::string& wanted,
            const std::string& found) {
  if (!holds) throw Error("learn: " + field + ": expected " + wanted + ", got " + found);
}

}  // namespace

void LearnOptions::validate() const {
  const auto at_least_1 = [](const std::string& field, std::int64_t value) {
    expect(value >= 1, field, "at least 1", std::to_string(value));
  };
  at_least_1("slots", slots.value_or(1));
  at_least_1("steps", steps);
  at_least_1("batch", batch);
  at_least_1("check_every", check_every);
  at_least_1("answer_tokens", answer_tokens);
  at_least_1("piece", piece);
  const double rehearsed = rehearsal.value_or(0);
  expect(rehearsed >= 0 && rehearsed <= 1e6, "rehearsal", "at least 0", std::to_string(rehearsed));
  expect(most_settling() >= 0, "settle", "at least 0", std::to_string(most_settling()));
  expect(repairs.value_or(0) >= 0, "repairs", "at least 0", std::to_string(repairs.value_or(0)));
  expect(warmup >= 0, "warmup", "at least 0", std::to_string(warmup));
  expect(coverage > 0 && coverage <= 1, "coverage", "a share above 0", std::to_string(coverage));
  expect(enough > 0 && enough <= 1, "enough", "a share above 0", std::to_string(enough));
  expect(held_out >= 0 && held_out < 1, "held_out", "a share below 1", std::to_string(held_out));
  expect(penalty.value_or(0) >= 0 && std::isfinite(penalty.value_or(0)), "penalty", "at least 0",
         std::to_string(penalty.value_or(0)));
  expect(rehearsal_weight > 0 && std::isfinite(rehearsal_weight), "rehearsal_weight",
         "a number above 0", std::to_string(rehearsal_weight));
  const double rate = lr.value_or(1);
  expect(rate > 0 && std::isfinite(rate), "lr", "a number above 0", std::to_string(rate));
  expect(optimizer == PoolOptimizer::kAdamW || optimizer == PoolOptimizer::kSgd, "optimizer",
         "adam or sgd", "another one");
}

LearnResult learn(Generator& generator, const std::vector<NewFact>& facts,
                  const LearnOptions& options, const SlotHistory& history,
                  const std::function<void(const LearnProgress&)>& progress) {
  const auto rows = edit::choose_rows(generator, facts, options, history);
  const LearnProgress end = edit::teach(generator, *rows, facts, options, progress);
  LearnResult result{.patch = rows->patch(),
                     .recalled = end.recalled,
                     .phrasings = end.phrasings,
                     .steps = end.step,
                     .slots = rows->slots(),
                     .earlier_recalled = end.earlier_recalled,
                     .earlier = end.earlier};
  if (!result.patch.slots.empty()) {
    result.patch.subjects = edit::subjects_of(facts);
    edit::add_slots(result.patch.subjects, generator, facts);
  }
  const std::string optimizer = options.optimizer == PoolOptimizer::kAdamW ? "adam" : "sgd";
  result.patch.notes = {
      {"what", std::to_string(facts.size()) + " facts"}, {"facts", std::to_string(facts.size())},
      {"selection", selection_name(options.selection)},  {"optimizer", optimizer},
      {"steps", std::to_string(result.steps)},           {"seed", std::to_string(options.seed)}};
  return result;
}

}  // namespace memlayers

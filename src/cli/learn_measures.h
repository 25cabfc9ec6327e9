// SPDX-License-Identifier: Apache-2.0
// What the commands that teach facts share: their options, and what they measure before and after.
#pragma once

#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "memlayers/edit.h"

namespace memlayers::cli {

struct LearnArguments {
  std::string model, facts, selection = "tfidf", optimizer = "adam";
  std::vector<std::string> background, keep, earlier, held_out;
  std::string phrasings, unseen_phrasings;
  AskArguments chat;
  std::optional<std::int64_t> slots;
  std::int64_t measured = 500;
  LearnOptions options;
  int threads = 0;
  bool is_json = false;
};

void add_options(CLI::App& app, LearnArguments& arguments);
LearnOptions options_of(const LearnArguments& arguments);

// The facts with their phrasings.
std::vector<NewFact> read_facts_to_learn(const LearnArguments& arguments);

// The model in memory, with its pool, asked as the arguments say. Throws Error where it has none.
Generator load_learner(const std::string& folder, const LearnArguments& arguments);

// What is measured before learning and after it: recall, or the perplexity of text.
struct Measure {
  std::string label, name;  // for the table, in JSON
  std::vector<Fact> facts = {};
  std::vector<std::string> text = {};
  std::vector<std::string> questions = {};  // the share of the model's own answers that it keeps
  std::vector<std::string> answers = {};    // its own, before
  std::string file = {};                    // of several that have one name in JSON
  double before = 0, after = 0;
  std::size_t too_long = 0;  // facts that do not fit the context, and so are not recalled

  double take(Generator& generator) const;
  // The same of other prompts: what `put` makes of each.
  Measure with_prompts(const std::function<std::string(const std::string&)>& put) const;
  // Into `before`, and counts what is too long. Throws Error where all of the facts are.
  void take_before(Generator& generator);
  // As the table shows such a number.
  std::string text_of(double value) const;
  // Its name: before and this, by file where several share the name.
  void add_to(nlohmann::ordered_json& json, double value_after) const;
};

// For a progress bar.
std::string progress_text(const LearnProgress& now);

std::vector<Measure> measures_of(const std::vector<NewFact>& facts,
                                 const LearnArguments& arguments);

}  // namespace memlayers::cli

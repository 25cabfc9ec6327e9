// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_learn.h"

#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/learn_measures.h"
#include "cli/terminal.h"
#include "edit/chosen_rows.h"
#include "edit/phrasings.h"
#include "edit/teach.h"
#include "edit/weights.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchLearnArguments : LearnArguments {
  std::vector<std::string> methods{"patch", "finetune", "lora"};
  double weight_lr = 1e-3;
  std::int64_t rank = 16;
};

std::unique_ptr<edit::Student> make_student(const std::string& method, Generator& generator,
                                            const std::vector<NewFact>& facts,
                                            const SlotHistory& history,
                                            const BenchLearnArguments& arguments) {
  const LearnOptions options = options_of(arguments);
  if (method == "finetune") {
    return std::make_unique<edit::AllWeights>(generator.model(), arguments.weight_lr);
  }
  if (method == "lora") {
    return std::make_unique<edit::LowRank>(generator.model(), arguments.rank, arguments.weight_lr,
                                           options.seed);
  }
  return edit::choose_rows(generator, facts, options, history);
}

// Of one method: what it measures afterwards, and what it took.
struct Outcome {
  std::string method;
  std::vector<double> after = {};
  LearnProgress end = {};
  std::int64_t trained = 0;
  double seconds = 0;
};

Outcome run(const std::string& method, Generator& generator, const std::vector<NewFact>& facts,
            const SlotHistory& history, const std::vector<Measure>& measures,
            const BenchLearnArguments& arguments) {
  const auto student = make_student(method, generator, facts, history, arguments);
  ProgressBar bar(method, arguments.options.steps + arguments.options.settle);
  const auto begin = std::chrono::steady_clock::now();
  Outcome outcome{.method = method};
  outcome.end =
      edit::teach(generator, *student, facts, options_of(arguments),
                  [&](const LearnProgress& now) { bar.update(now.step, progress_text(now)); });
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  bar.finish();
  outcome.trained = student->parameters();
  for (const Measure& measure : measures) outcome.after.push_back(measure.take(generator));
  student->show(true);  // the next one begins with the same model
  return outcome;
}

Json json_of(const Outcome& outcome, const std::vector<Measure>& measures) {
  Json json = {{"method", outcome.method}};
  for (std::size_t i = 0; i < measures.size(); ++i) {
    measures[i].add_to(json, outcome.after[i]);
  }
  json["steps"] = outcome.end.step;
  json["seconds"] = outcome.seconds;
  json["parameters"] = outcome.trained;
  return json;
}

void print_table(const std::vector<Outcome>& outcomes, const std::vector<Measure>& measures) {
  std::vector<std::vector<std::string>> lines{{"", "before"}};
  for (const Outcome& outcome : outcomes) lines.front().push_back(outcome.method);
  for (std::size_t i = 0; i < measures.size(); ++i) {
    lines.push_back({measures[i].label, measures[i].text_of(measures[i].before)});
    for (const Outcome& outcome : outcomes) {
      lines.back().push_back(measures[i].text_of(outcome.after[i]));
    }
  }
  lines.push_back({"steps", ""});
  lines.push_back({"seconds", ""});
  lines.push_back({"parameters trained", ""});
  for (const Outcome& outcome : outcomes) {
    lines[lines.size() - 3].push_back(std::to_string(outcome.end.step));
    lines[lines.size() - 2].push_back(decimals(outcome.seconds));
    lines[lines.size() - 1].push_back(short_number(static_cast<double>(outcome.trained)));
  }
  std::cout << table(lines);
}

int bench_learn(const BenchLearnArguments& arguments) {
  options_of(arguments).validate();
  if (arguments.rank < 1 || !(arguments.weight_lr > 0)) {
    throw UsageError("bench learn: expected --rank of at least 1 and --weight-lr above 0");
  }
  set_threads(arguments.threads);
  const std::vector<NewFact> facts = read_facts_to_learn(arguments);
  std::vector<Measure> measures = measures_of(facts, arguments);
  const std::string folder = resolve_model_folder(arguments.model);
  Generator generator = load_learner(folder, arguments);
  const SlotHistory history = history_of(generator, folder, arguments);
  edit::check_can_learn(generator, facts);
  for (Measure& measure : measures) measure.take_before(generator);
  std::vector<Outcome> outcomes;
  for (const std::string& method : arguments.methods) {
    outcomes.push_back(run(method, generator, facts, history, measures, arguments));
    if (arguments.is_json) std::cout << json_of(outcomes.back(), measures).dump() << std::endl;
  }
  if (!arguments.is_json) print_table(outcomes, measures);
  return 0;
}

}  // namespace

std::function<int()> bench_learn_command(CLI::App& app) {
  auto a = std::make_shared<BenchLearnArguments>();
  add_options(app, *a);
  app.add_option("--methods", a->methods, "what to compare, in this order")
      ->delimiter(',')
      ->check(CLI::IsMember({"patch", "finetune", "lora"}))
      ->capture_default_str();
  app.add_option("--weight-lr", a->weight_lr, "learning rate of finetune and lora")
      ->capture_default_str();
  app.add_option("--rank", a->rank, "of lora")->capture_default_str();
  app.footer(
      "Example:\n  memlayers bench learn runs/demo new.jsonl --background known.jsonl --keep "
      "known.jsonl");
  return [a] { return bench_learn(*a); };
}

}  // namespace memlayers::cli

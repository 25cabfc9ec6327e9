// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_learn.h"

#include <iostream>
#include <memory>

#include "cli/bench_methods.h"
#include "edit/phrasings.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

void check(const BenchLearnArguments& arguments) {
  options_of(arguments).validate();
  if (arguments.rank < 1 || !(arguments.weight_lr > 0)) {
    throw UsageError("bench learn: expected --rank of at least 1 and --weight-lr above 0");
  }
  if (arguments.retrieved < 1) {
    throw UsageError("bench learn: expected --retrieved of at least 1, got " +
                     std::to_string(arguments.retrieved));
  }
}

int bench_learn(const BenchLearnArguments& arguments) {
  check(arguments);
  set_threads(arguments.threads);
  const std::vector<NewFact> facts = read_facts_to_learn(arguments);
  std::vector<Measure> measures = measures_of(facts, arguments);
  const std::string folder = resolve_model_folder(arguments.model);
  Generator generator = load_learner(folder, arguments);
  const SlotHistory history =
      read_history(generator, folder, arguments.background, options_of(arguments).selection);
  edit::check_can_learn(generator, facts);
  for (Measure& measure : measures) measure.take_before(generator);
  LearnBench bench(generator, facts, history, measures, arguments);
  std::vector<Outcome> outcomes;
  for (const std::string& method : arguments.methods) {
    outcomes.push_back(bench.run(method));
    if (arguments.is_json) std::cout << json_of(outcomes.back(), measures).dump() << std::endl;
  }
  if (!arguments.is_json) print_table(outcomes, measures);
  return 0;
}

}  // namespace

std::function<int()> bench_learn_command(CLI::App& app) {
  auto a = std::make_shared<BenchLearnArguments>();
  add_options(app, *a);
  app.add_option("--methods", a->methods,
                 "what to compare, in this order; dense-...: a bottleneck beside the memory's "
                 "blocks, of as many FLOPs as a memory layer or as many parameters as the patch; "
                 "retrieval: nothing is trained, facts stand before the question")
      ->delimiter(',')
      ->check(CLI::IsMember(learning_methods()))
      ->capture_default_str();
  app.add_option("--weight-lr", a->weight_lr, "learning rate of finetune, lora and dense-...")
      ->capture_default_str();
  app.add_option("--rank", a->rank, "of lora")->capture_default_str();
  app.add_option("--retrieved", a->retrieved, "facts before a question, at most")
      ->capture_default_str();
  app.footer(
      "Example:\n  memlayers bench learn runs/demo new.jsonl --background known.jsonl --keep "
      "known.jsonl\n  memlayers bench learn runs/demo new.jsonl --methods "
      "patch,dense-flops,retrieval");
  return [a] { return bench_learn(*a); };
}

}  // namespace memlayers::cli

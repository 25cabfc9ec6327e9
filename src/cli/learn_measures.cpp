// SPDX-License-Identifier: Apache-2.0
#include "cli/learn_measures.h"

#include <cmath>

#include "cli/score_text.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::cli {

void add_options(CLI::App& app, LearnArguments& arguments) {
  app.add_option("model", arguments.model, "model folder, or a run's folder")->required();
  app.add_option("facts", arguments.facts,
                 "JSONL file: \"prompt\", \"answer\", and lists \"paraphrases\" (learned "
                 "too) and \"unseen\" (measured only)")
      ->required();
  app.add_option("--selection", arguments.selection,
                 "how slots are ranked; guarded: as tfidf, without those of patches applied")
      ->check(CLI::IsMember({"tfidf", "kl", "guarded"}))
      ->capture_default_str();
  app.add_option("--slots", arguments.slots, "rows that may change, at most (100 a fact)");
  app.add_option("--optimizer", arguments.optimizer, "of the rows")
      ->check(CLI::IsMember({"adam", "sgd"}))
      ->capture_default_str();
  app.add_option("--lr", arguments.options.lr, "learning rate")->capture_default_str();
  app.add_option("--steps", arguments.options.steps, "at most; ends when all is recalled")
      ->capture_default_str();
  app.add_option("--batch", arguments.options.batch, "prompts and paraphrases a step")
      ->capture_default_str();
  app.add_option("--check-every", arguments.options.check_every, "steps between tests of all facts")
      ->capture_default_str();
  app.add_option("--seed", arguments.options.seed, "of the order of the facts")
      ->capture_default_str();
  app.add_option(
      "--background", arguments.background,
      "text or JSONL files like the training data, and facts of earlier patches: they are "
      "rehearsed, so that they stay; if the model has no usage.safetensors, the reads are "
      "counted in them");
  app.add_option("--rehearsal", arguments.options.rehearsal,
                 "sequences of --background for each prompt or paraphrase of a step; 0: none")
      ->capture_default_str();
  app.add_option("--settle", arguments.options.settle,
                 "steps of a falling learning rate behind the last, if anything is rehearsed")
      ->capture_default_str();
  app.add_option("--rehearsal-weight", arguments.options.rehearsal_weight,
                 "of what their predictions have lost, in the loss")
      ->capture_default_str();
  app.add_option("--keep", arguments.keep, "facts whose recall is measured before and after");
  app.add_option("--earlier", arguments.earlier,
                 "facts of earlier patches, the same for each file");
  app.add_option("--held-out", arguments.held_out, "text or JSONL whose perplexity is measured");
  app.add_option("--threads", arguments.threads, "CPU threads; 0: all cores")
      ->capture_default_str();
  app.add_flag("--json", arguments.is_json, "one JSON object on standard output");
}

LearnOptions options_of(const LearnArguments& arguments) {
  LearnOptions options = arguments.options;
  options.slots = arguments.slots;
  options.rehearse = arguments.background;
  options.selection = arguments.selection == "kl"        ? SlotSelection::kKl
                      : arguments.selection == "guarded" ? SlotSelection::kGuarded
                                                         : SlotSelection::kTfIdf;
  options.optimizer = arguments.optimizer == "sgd" ? PoolOptimizer::kSgd : PoolOptimizer::kAdamW;
  return options;
}

Generator load_learner(const std::string& folder) {
  Generator generator(load_model(folder), load_tokenizer(folder));
  if (generator.model()->pool().is_empty()) {
    throw Error(folder + ": expected a model with memory layers, got one without a pool");
  }
  return generator;
}

SlotHistory history_of(Generator& generator, const std::string& folder,
                       const LearnArguments& arguments) {
  SlotHistory history;
  if (const auto usage = read_usage(folder, generator.model()->pool()->slots())) {
    history.reads = *usage;
  } else if (!arguments.background.empty()) {
    history.reads = count_reads(generator, arguments.background);
  } else {
    throw Error(folder +
                ": expected usage.safetensors, the reads that training counted, or --background "
                "FILE to count those of, got neither");
  }
  if (arguments.selection == "guarded") {
    history.patched = patched_slots(StoreReader::open(io::join(folder, "pool")).snapshot());
  }
  return history;
}

double Measure::take(Generator& generator) const {
  if (!text.empty()) return std::exp(score_text(generator, text).loss);
  return evaluate_facts(generator, facts).recall.value;
}

std::string Measure::text_of(double value) const {
  return text.empty() ? percent(value) : decimals(value);
}

void Measure::add_to(nlohmann::ordered_json& json, double value_after) const {
  nlohmann::ordered_json& place = file.empty() ? json[name] : json[name][file];
  place = {{"before", before}, {"after", value_after}};
}

std::string progress_text(const LearnProgress& now) {
  return "loss " + decimals(now.loss) + "  recalled " + std::to_string(now.recalled) + "/" +
         std::to_string(now.phrasings);
}

std::vector<Measure> measures_of(const std::vector<NewFact>& facts,
                                 const LearnArguments& arguments) {
  std::vector<Measure> all;
  const auto recall = [&](const std::string& what, const std::string& name,
                          std::vector<Fact> list) {
    if (list.empty()) return;
    all.push_back({.label = "recall of " + std::to_string(list.size()) + " " + what,
                   .name = name,
                   .facts = std::move(list)});
  };
  std::vector<Fact> prompts, paraphrases;
  for (const NewFact& fact : facts) {
    prompts.push_back(fact.fact);
    for (const std::string& prompt : fact.paraphrases) {
      paraphrases.push_back({prompt, fact.fact.answer});
    }
  }
  recall("new facts", "recall", prompts);
  recall("paraphrases", "paraphrases", paraphrases);
  recall("unseen phrasings", "unseen", unseen_phrasings(facts));
  if (!arguments.keep.empty()) recall("facts to keep", "keep", read_facts(arguments.keep));
  for (const std::string& file : arguments.earlier) {
    recall("earlier facts, " + file, "earlier", read_facts({file}));
    all.back().file = file;
  }
  if (!arguments.held_out.empty()) {
    all.push_back(
        {.label = "perplexity of held-out text", .name = "perplexity", .text = arguments.held_out});
  }
  return all;
}

}  // namespace memlayers::cli

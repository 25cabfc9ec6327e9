// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/score_text.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "memlayers/checkpoint.h"
#include "memlayers/edit.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string model, facts, out, selection = "tfidf", optimizer = "adam";
  std::vector<std::string> background, keep, earlier, held_out;
  std::optional<std::int64_t> slots;
  LearnOptions options;
  int threads = 0;
  bool is_dry_run = false, is_json = false;
};

LearnOptions options_of(const Arguments& arguments) {
  LearnOptions options = arguments.options;
  options.slots = arguments.slots;
  options.selection = arguments.selection == "kl"        ? SlotSelection::kKl
                      : arguments.selection == "guarded" ? SlotSelection::kGuarded
                                                         : SlotSelection::kTfIdf;
  options.optimizer = arguments.optimizer == "sgd" ? PoolOptimizer::kSgd : PoolOptimizer::kAdamW;
  return options;
}

SlotHistory history_of(Generator& generator, const std::string& folder,
                       const Arguments& arguments) {
  SlotHistory history;
  if (!arguments.background.empty()) {
    history.reads = count_reads(generator, arguments.background);
  } else if (const auto usage = read_usage(folder, generator.model()->pool()->slots())) {
    history.reads = *usage;
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

// What is measured before learning and after it: recall, or the perplexity of text.
struct Measure {
  std::string label, name;  // for the table, in JSON
  std::vector<Fact> facts = {};
  std::vector<std::string> text = {};
  std::string file = {};  // of several that have one name in JSON
  double before = 0, after = 0;

  double take(Generator& generator) const {
    if (!text.empty()) return std::exp(score_text(generator, text).loss);
    return evaluate_facts(generator, facts).recall.value;
  }
};

std::vector<Measure> measures_of(const std::vector<NewFact>& facts, const Arguments& arguments) {
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

int show_slots(Generator& generator, const std::vector<NewFact>& facts, const SlotHistory& history,
               const Arguments& arguments) {
  const std::vector<ChosenSlot> chosen =
      choose_slots(generator, facts, options_of(arguments), history);
  constexpr std::size_t kMost = 20;
  Json slots = Json::array();
  std::vector<std::vector<std::string>> lines{{"slot", "score", "reads", "reads before"}};
  for (const ChosenSlot& slot : chosen) {
    if (arguments.is_json) {
      slots.push_back({{"slot", slot.slot},
                       {"score", slot.score},
                       {"reads", slot.reads},
                       {"reads_before", slot.reads_before}});
    } else if (lines.size() <= kMost) {
      lines.push_back({std::to_string(slot.slot), short_number(slot.score),
                       std::to_string(slot.reads), std::to_string(slot.reads_before)});
    }
  }
  if (arguments.is_json) {
    std::cout << Json{{"facts", facts.size()}, {"slots", slots}}.dump() << '\n';
    return 0;
  }
  std::cout << table(lines) << (chosen.size() > kMost ? "... (--json shows all)\n" : "")
            << chosen.size() << " slots would be trained; nothing was written\n";
  return 0;
}

LearnResult learn_with_bar(Generator& generator, const std::vector<NewFact>& facts,
                           const SlotHistory& history, const Arguments& arguments) {
  ProgressBar bar("learn", arguments.options.steps);
  LearnResult result =
      learn(generator, facts, options_of(arguments), history, [&](const LearnProgress& now) {
        bar.update(now.step, "loss " + decimals(now.loss) + "  recalled " +
                                 std::to_string(now.recalled) + "/" +
                                 std::to_string(now.phrasings));
      });
  bar.finish();
  return result;
}

void report(const std::vector<Measure>& measures, const LearnResult& result,
            const Arguments& arguments) {
  const auto bytes = io::posix().map(arguments.out)->bytes().size();
  if (arguments.is_json) {
    Json json = {{"patch", result.patch.id}, {"file", arguments.out}};
    for (const Measure& measure : measures) {
      Json& place = measure.file.empty() ? json[measure.name] : json[measure.name][measure.file];
      place = {{"before", measure.before}, {"after", measure.after}};
    }
    json["steps"] = result.steps;
    json["slots"] = result.slots;
    json["rows"] = result.patch.slots.size();
    json["bytes"] = bytes;
    std::cout << json.dump() << '\n';
    return;
  }
  std::vector<std::vector<std::string>> lines{{"", "before", "after"}};
  for (const Measure& measure : measures) {
    const auto text = [&](double value) {
      return measure.text.empty() ? percent(value) : decimals(value);
    };
    lines.push_back({measure.label, text(measure.before), text(measure.after)});
  }
  std::cout << table(lines) << arguments.out << ": patch " << result.patch.id << ", "
            << result.patch.slots.size() << " rows, " << short_bytes(static_cast<double>(bytes))
            << ", " << result.steps << " steps\n";
  if (result.recalled < result.phrasings) {
    std::cerr
        << "memlayers: warning: " << result.phrasings - result.recalled << " of "
        << result.phrasings
        << " prompts and paraphrases are not recalled yet; more --steps or --slots may help\n";
  }
}

int learn_facts(const Arguments& arguments) {
  if (arguments.out.empty() && !arguments.is_dry_run) {
    throw UsageError("learn: expected -o FILE for the patch, or --dry-run");
  }
  options_of(arguments).validate();
  set_threads(arguments.threads);
  if (!arguments.out.empty()) check_is_new(arguments.out, "file");
  const std::vector<NewFact> facts = read_new_facts(arguments.facts);
  std::vector<Measure> measures = measures_of(facts, arguments);
  const std::string folder = resolve_model_folder(arguments.model);
  Generator generator(load_model(folder), load_tokenizer(folder));
  if (generator.model()->pool().is_empty()) {
    throw Error(folder + ": expected a model with memory layers, got one without a pool");
  }
  const SlotHistory history = history_of(generator, folder, arguments);
  if (arguments.is_dry_run) return show_slots(generator, facts, history, arguments);

  for (Measure& measure : measures) measure.before = measure.take(generator);
  LearnResult result = learn_with_bar(generator, facts, history, arguments);
  if (result.patch.slots.empty()) {
    throw Error(arguments.facts + ": expected facts that the model does not know, got " +
                std::to_string(facts.size()) + " that it recalls already");
  }
  for (Measure& measure : measures) measure.after = measure.take(generator);
  result.patch.notes["from"] = arguments.facts;
  result.patch.notes["what"] += " of " + arguments.facts;
  write_patch(arguments.out, result.patch);
  report(measures, result, arguments);
  return 0;
}

}  // namespace

Command learn_command() {
  return {
      "learn", "Teach a model new facts: a patch of a few pool rows",
      "memlayers learn runs/demo facts.jsonl -o fact.safetensors --keep known.jsonl\n"
      "  memlayers patch apply runs/demo fact.safetensors",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<Arguments>();
        app.add_option("model", a->model, "model folder, or a run's folder")->required();
        app.add_option("facts", a->facts,
                       "JSONL file: \"prompt\", \"answer\", and lists \"paraphrases\" (learned "
                       "too) and \"unseen\" (measured only)")
            ->required();
        app.add_option("-o,--out", a->out, "the new patch file");
        app.add_option("--selection", a->selection,
                       "how slots are ranked; guarded: as tfidf, without those of patches applied")
            ->check(CLI::IsMember({"tfidf", "kl", "guarded"}))
            ->capture_default_str();
        app.add_option("--slots", a->slots, "rows that may change, at most (32 a fact)");
        app.add_option("--optimizer", a->optimizer, "of the rows")
            ->check(CLI::IsMember({"adam", "sgd"}))
            ->capture_default_str();
        app.add_option("--lr", a->options.lr, "learning rate")->capture_default_str();
        app.add_option("--steps", a->options.steps, "at most; ends when all is recalled")
            ->capture_default_str();
        app.add_option("--batch", a->options.batch, "prompts and paraphrases a step")
            ->capture_default_str();
        app.add_option("--check-every", a->options.check_every, "steps between tests of all facts")
            ->capture_default_str();
        app.add_option("--seed", a->options.seed, "of the order of the facts")
            ->capture_default_str();
        app.add_option("--background", a->background,
                       "text or JSONL files like the training data, whose reads are counted; "
                       "absent: usage.safetensors of the model");
        app.add_option("--keep", a->keep, "facts whose recall is measured before and after");
        app.add_option("--earlier", a->earlier, "facts of earlier patches, the same for each file");
        app.add_option("--held-out", a->held_out, "text or JSONL whose perplexity is measured");
        app.add_flag("--dry-run", a->is_dry_run, "show the chosen slots, write nothing");
        app.add_option("--threads", a->threads, "CPU threads; 0: all cores")->capture_default_str();
        app.add_flag("--json", a->is_json, "one JSON object on standard output");
        return [a] { return learn_facts(*a); };
      }};
}

}  // namespace memlayers::cli

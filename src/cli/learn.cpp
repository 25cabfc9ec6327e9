// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/learn_measures.h"
#include "cli/new_output.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "edit/phrasings.h"
#include "edit/teach.h"
#include "io/file_system.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct LearnNewArguments : LearnArguments {
  std::string out;
  bool is_dry_run = false;
};

int show_slots(Generator& generator, const std::vector<NewFact>& facts, const SlotHistory& history,
               const LearnNewArguments& arguments) {
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
    print_json({{"facts", facts.size()}, {"slots", slots}});
    return 0;
  }
  std::cout << table(lines) << (chosen.size() > kMost ? "... (--json shows all)\n" : "")
            << chosen.size() << " slots would be trained; nothing was written\n";
  return 0;
}

LearnResult learn_with_bar(Generator& generator, const std::vector<NewFact>& facts,
                           const SlotHistory& history, const LearnNewArguments& arguments) {
  const LearnOptions options = options_of(arguments);
  const std::int64_t rounds =
      options.rehearse.empty() ? 1 : 1 + edit::most_repairs(options, generator.model()->config());
  ProgressBar bar("learn", options.steps + rounds * options.most_settling());
  LearnResult result = learn(generator, facts, options, history, [&](const LearnProgress& now) {
    bar.update(now.step, progress_text(now));
  });
  bar.finish();
  return result;
}

// Where the name was taken while it learned, nothing of either is lost.
void write_out(const std::string& path, const Patch& patch) {
  try {
    write_new_patch(path, patch);
  } catch (const io::Exists&) {
    const std::string other = path + "." + patch.id.substr(0, 8);
    write_new_patch(other, patch);
    throw Error(path + ": expected a file that does not exist yet, got one that came meanwhile; " +
                "the patch is in " + other);
  }
}

void report(const std::vector<Measure>& measures, const LearnResult& result,
            const LearnNewArguments& arguments) {
  const auto bytes = io::posix().map(arguments.out)->bytes().size();
  if (arguments.is_json) {
    Json json = {{"patch", result.patch.id}, {"file", arguments.out}};
    for (const Measure& measure : measures) {
      measure.add_to(json, measure.after);
    }
    if (result.earlier > 0) {
      json["earlier_facts"] = {{"recalled", result.earlier_recalled}, {"of", result.earlier}};
    }
    json["steps"] = result.steps;
    json["slots"] = result.slots;
    json["rows"] = result.patch.slots.size();
    json["bytes"] = bytes;
    print_json(json);
    return;
  }
  std::vector<std::vector<std::string>> lines{{"", "before", "after"}};
  for (const Measure& measure : measures) {
    lines.push_back(
        {measure.label, measure.text_of(measure.before), measure.text_of(measure.after)});
  }
  std::cout << table(lines) << arguments.out << ": patch " << result.patch.id << ", "
            << result.patch.slots.size() << " rows, " << short_bytes(static_cast<double>(bytes))
            << ", " << result.steps << " steps\n";
  if (result.earlier > 0) {
    std::cout << result.earlier_recalled << " of " << result.earlier
              << " phrasings of facts of --background are recalled\n";
  }
  if (result.recalled < result.phrasings) {
    print_warning(
        std::to_string(result.phrasings - result.recalled) + " of " +
        std::to_string(result.phrasings) +
        " prompts and paraphrases are not recalled yet; more --steps or --slots may help");
  }
}

// Drawn behind the first of them, which may be refused in one sentence.
void for_each_with_bar(const std::string& label, std::vector<Measure>& measures,
                       const std::function<void(Measure&)>& take) {
  ProgressBar bar(label, static_cast<std::int64_t>(measures.size()));
  for (std::size_t i = 0; i < measures.size(); ++i) {
    take(measures[i]);
    bar.update(static_cast<std::int64_t>(i) + 1, measures[i].label);
  }
}

int learn_facts(const LearnNewArguments& arguments) {
  if (arguments.out.empty() && !arguments.is_dry_run) {
    throw UsageError("learn: expected -o FILE for the patch, or --dry-run");
  }
  if (!arguments.is_dry_run) work_without_readers();
  options_of(arguments).validate();
  set_threads(arguments.threads);
  if (!arguments.out.empty()) check_is_new(arguments.out, "file");
  const std::vector<NewFact> facts = read_facts_to_learn(arguments);
  std::vector<Measure> measures = measures_of(facts, arguments);
  const std::string folder = resolve_model_folder(arguments.model);
  Generator generator = load_learner(folder, arguments);
  const SlotHistory history =
      read_history(generator, folder, arguments.background, options_of(arguments).selection);
  if (arguments.is_dry_run) return show_slots(generator, facts, history, arguments);

  edit::check_can_learn(generator, facts);
  for_each_with_bar("before", measures, [&](Measure& measure) { measure.take_before(generator); });
  LearnResult result = learn_with_bar(generator, facts, history, arguments);
  if (result.patch.slots.empty()) {
    throw Error(arguments.facts + ": expected facts that the model does not know, got " +
                std::to_string(facts.size()) + " that it recalls already");
  }
  for_each_with_bar("after", measures,
                    [&](Measure& measure) { measure.after = measure.take(generator); });
  result.patch.notes["from"] = arguments.facts;
  result.patch.notes["what"] += " of " + arguments.facts;
  write_out(arguments.out, result.patch);
  report(measures, result, arguments);
  return 0;
}

}  // namespace

Command learn_command() {
  return {"learn", "Teach a model new facts: a patch of a few pool rows",
          "memlayers learn runs/demo facts.jsonl -o fact.safetensors --keep known.jsonl\n"
          "  memlayers patch apply runs/demo fact.safetensors",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<LearnNewArguments>();
            app.add_option("-o,--out", a->out, "the new patch file");
            app.add_flag("--dry-run", a->is_dry_run, "show the chosen slots, write nothing");
            add_options(app, *a);
            return [a] { return learn_facts(*a); };
          }};
}

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/retrofit.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/learn_measures.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/model_source.h"
#include "memlayers/checkpoint.h"

namespace memlayers::cli {
namespace {

struct RetrofitArguments {
  std::string model, out, row_dtype = "float32", prime, phrasings;
  std::optional<std::string> gate;  // absent: two with `prime`, else none
  std::vector<std::int64_t> layers;
  std::int64_t gate_dim = 128;
  RetrofitOptions options;
  LearnOptions learn{.steps = 200, .rehearsal = 0.5, .settle = 100, .warmup = 20};
  AskArguments chat;
  int threads = 0;
  bool empties = false, is_json = false;
};

std::string gate_of(const RetrofitArguments& arguments) {
  return arguments.gate.value_or(arguments.prime.empty() ? "none" : "two");
}

RetrofitOptions options_of(const RetrofitArguments& arguments) {
  RetrofitOptions options = arguments.options;
  if (!arguments.layers.empty()) options.layers = arguments.layers;
  const std::string gate = gate_of(arguments);
  options.gate = gate != "none";
  if (gate == "two") options.gate_dim = arguments.gate_dim;
  if (arguments.row_dtype == "bfloat16") options.row_dtype = RowType::kBFloat16;
  return options;
}

void report(const RetrofitArguments& arguments, const MemoryConfig& memory,
            const std::optional<LearnProgress>& primed) {
  if (arguments.is_json) {
    nlohmann::ordered_json json{{"model", arguments.out},
                                {"layers", *memory.layers},
                                {"slots", memory.slots()},
                                {"output_scales", memory.output_scales},
                                {"gate", gate_of(arguments)}};
    if (primed) {
      json["phrasings"] = primed->phrasings;
      json["recalled"] = primed->recalled;
      json["steps"] = primed->step;
    }
    print_json(json);
    return;
  }
  std::vector<std::vector<std::string>> lines{{"layer", "output scale"}};
  for (std::size_t i = 0; i < memory.layers->size(); ++i) {
    lines.push_back({std::to_string((*memory.layers)[i]), decimals(memory.output_scales[i])});
  }
  std::cout << table(lines) << arguments.out << ": "
            << short_count(static_cast<double>(memory.slots()))
            << " slots beside the feed-forward blocks; ";
  if (primed) {
    std::cout << primed->recalled << " of " << primed->phrasings << " phrasings recalled after "
              << primed->step << " steps" << (arguments.empties ? ", its rows are zero again" : "")
              << "\n";
  } else {
    std::cout << "it says what it said until it is taught\n";
  }
}

LearnOptions learn_options_of(const RetrofitArguments& arguments) {
  LearnOptions options = arguments.learn;
  options.rehearse = arguments.options.background;
  options.seed = arguments.options.seed;
  return options;
}

int retrofit_model(const RetrofitArguments& arguments) {
  work_without_readers();
  set_threads(arguments.threads);
  check_is_new(arguments.out, "folder");
  const RetrofitOptions options = options_of(arguments);
  std::vector<NewFact> facts;
  if (!arguments.prime.empty()) {
    learn_options_of(arguments).validate();
    facts = read_new_facts(arguments.prime);
    if (!arguments.phrasings.empty()) {
      add_phrasings(facts, arguments.phrasings, PhrasingUse::kLearned);
    }
  }
  const std::string source = resolve_model_folder(arguments.model);
  const ModelConfig plain = io::read_model(io::posix(), source);
  if (!plain.memory_layers().empty()) {
    throw Error(source + ": expected a model without a memory, got one that has one");
  }
  retrofitted_memory(plain, options);  // refused before its weights are read
  Generator generator(load_model(source), load_tokenizer(source));
  Generator made = retrofit(generator, options);
  std::optional<LearnProgress> primed;
  if (!facts.empty()) {
    ask_as_told(made, arguments.chat);
    ProgressBar bar("prime", arguments.learn.steps + arguments.learn.most_settling());
    primed = prime(made, facts, learn_options_of(arguments),
                   [&](const LearnProgress& now) { bar.update(now.step, progress_text(now)); });
    bar.finish();
    if (arguments.empties) clear_rows(made);
  }
  write_new_model(arguments.out, made.model(), source);
  report(arguments, *made.model()->config().memory, primed);
  return 0;
}

}  // namespace

Command retrofit_command() {
  return {
      "retrofit", "Give a model that has none a memory beside its feed-forward blocks",
      "memlayers retrofit models/smollm2 -o models/smollm2-memory --layers 15,20,25\n"
      "  memlayers learn models/smollm2-memory facts.jsonl -o facts.safetensors",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<RetrofitArguments>();
        add_model(app, a->model);
        app.add_option("-o,--out", a->out, "the new model folder")->required();
        app.add_option("--layers", a->layers,
                       "decoder layers, from 0 (without it: those at a half, two thirds and "
                       "five sixths)")
            ->delimiter(',');
        app.add_option("--n-keys", a->options.n_keys, "sub-keys per set: n_keys^2 slots")
            ->capture_default_str();
        app.add_option("--heads", a->options.heads, "independent lookups per token")
            ->capture_default_str();
        app.add_option("--knn", a->options.knn, "slots read per head")->capture_default_str();
        app.add_option("--k-dim", a->options.k_dim, "width of a query, even")
            ->capture_default_str();
        app.add_option("--gate", a->gate,
                       "what the memory's output is multiplied by: nothing, a linear gate, or "
                       "one of two layers (two with --prime, else none)")
            ->check(CLI::IsMember({"none", "linear", "two"}));
        app.add_option("--gate-dim", a->gate_dim, "width between the two layers")
            ->check(CLI::PositiveNumber)
            ->capture_default_str();
        app.add_option("--row-dtype", a->row_dtype, "of the pool's rows")
            ->check(CLI::IsMember({"float32", "bfloat16"}))
            ->capture_default_str();
        app.add_option("--background", a->options.background,
                       "text or JSONL files along which the blocks' outputs are measured "
                       "(without it: a page of prose)");
        CLI::Option* prime = app.add_option(
            "--prime", a->prime,
            "facts, as learn takes them, by which queries, sub-keys, gate and rows are trained");
        app.add_flag("--empty", a->empties,
                     "then the rows are zero again: logits are the model's own, and what queries, "
                     "sub-keys and gate were trained for can be taught by patches")
            ->needs(prime);
        app.add_option("--phrasings", a->phrasings,
                       "file of phrasings with {prompt} or {subject} for facts without "
                       "\"paraphrases\"")
            ->needs(prime);
        app.add_option("--questions", a->learn.questions,
                       "JSONL with \"prompt\": what else the model is asked; its own answers "
                       "are rehearsed")
            ->needs(prime);
        app.add_option("--steps", a->learn.steps,
                       "of priming, at most; ends when all is "
                       "recalled")
            ->capture_default_str();
        app.add_option("--enough", a->learn.enough, "or this share of it")->capture_default_str();
        app.add_option("--settle", a->learn.settle,
                       "steps of a falling learning rate behind "
                       "the last (100)");
        app.add_option("--batch", a->learn.batch, "phrasings a step")->capture_default_str();
        app.add_option("--rehearsal", a->learn.rehearsal,
                       "pieces of --background and own answers for each phrasing of a step (0.5)");
        app.add_option("--penalty", a->learn.penalty,
                       "of the memory's output along other text, in the loss (20)");
        app.add_option("--lr", a->learn.lr, "learning rate of the rows (2e-2)");
        add_chat(app, a->chat);
        app.add_option("--seed", a->options.seed, "of queries, sub-keys and gate")
            ->capture_default_str();
        add_threads(app, a->threads);
        add_json(app, a->is_json);
        return [a] { return retrofit_model(*a); };
      }};
}

}  // namespace memlayers::cli

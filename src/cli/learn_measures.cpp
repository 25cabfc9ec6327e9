// SPDX-License-Identifier: Apache-2.0
#include "cli/learn_measures.h"

#include <cmath>

#include "cli/options.h"
#include "cli/score_text.h"
#include "cli/terminal.h"
#include "edit/phrasings.h"
#include "io/json_lines.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "text/dataset.h"
#include "text/shuffle.h"

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
  app.add_option(
      "--slots", arguments.slots,
      "rows that may change, at most (100 a fact; in a retrofitted model all that the facts read)");
  app.add_option("--coverage", arguments.options.coverage,
                 "share of what the facts read, by weight, that these rows make up; less makes "
                 "smaller patches")
      ->capture_default_str();
  app.add_option("--optimizer", arguments.optimizer, "of the rows")
      ->check(CLI::IsMember({"adam", "sgd"}))
      ->capture_default_str();
  app.add_option("--lr", arguments.options.lr,
                 "learning rate (3e-3; of a retrofitted model's rows 2e-2)");
  app.add_option("--warmup", arguments.options.warmup, "steps in which it rises")
      ->capture_default_str();
  app.add_option("--phrasings", arguments.phrasings,
                 "file of phrasings with {prompt} or {subject}, one a line, for facts without "
                 "\"paraphrases\"");
  app.add_option("--unseen-phrasings", arguments.unseen_phrasings,
                 "the same for facts without \"unseen\"");
  app.add_option("--steps", arguments.options.steps, "at most; ends when all is recalled")
      ->capture_default_str();
  app.add_option("--enough", arguments.options.enough, "or this share of it")
      ->capture_default_str();
  app.add_option("--hold-out", arguments.options.held_out,
                 "share of the phrasings that is not learned; learning ends before they fall")
      ->capture_default_str();
  app.add_option("--batch", arguments.options.batch, "prompts and paraphrases a step")
      ->capture_default_str();
  app.add_option("--check-every", arguments.options.check_every,
                 "steps between tests of all facts, at least")
      ->capture_default_str();
  app.add_option("--seed", arguments.options.seed, "of the order of the facts")
      ->capture_default_str();
  app.add_option(
      "--background", arguments.background,
      "text or JSONL files like the training data, and facts of earlier patches: they are "
      "rehearsed, so that they stay; if the model has no usage.safetensors, the reads are "
      "counted in them");
  app.add_option(
      "--rehearsal", arguments.options.rehearsal,
      "sequences of --background and --questions for each prompt or paraphrase of a step; "
      "0: none (3; in a retrofitted model 0.5)");
  app.add_option("--questions", arguments.options.questions,
                 "JSONL with \"prompt\": what else the model is asked; its own answers are "
                 "rehearsed");
  app.add_option("--answer-tokens", arguments.options.answer_tokens, "of such an answer, at most")
      ->capture_default_str();
  app.add_option("--piece", arguments.options.piece, "tokens of a rehearsed piece of text, at most")
      ->capture_default_str();
  app.add_option("--penalty", arguments.options.penalty,
                 "of the memory's output along other text, in the loss (0; of a retrofitted model "
                 "20)");
  app.add_option("--repairs", arguments.options.repairs,
                 "times that settling comes again, at most, while facts of --background are not "
                 "recalled; 0: they are not looked for (0; in a retrofitted model 2)");
  app.add_option(
      "--settle", arguments.options.settle,
      "steps of a falling learning rate behind the last, if anything is rehearsed (200; in "
      "a retrofitted model no more than before them)");
  app.add_option("--rehearsal-weight", arguments.options.rehearsal_weight,
                 "of what their predictions have lost, in the loss")
      ->capture_default_str();
  app.add_option(
         "--measured", arguments.measured,
         "paraphrases, unseen phrasings and phrasings of earlier facts that are measured, at "
         "most, of each")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--keep", arguments.keep,
                 "facts whose recall is measured before and after; of a line without \"answer\", "
                 "whether the model's own stays");
  app.add_option("--earlier", arguments.earlier,
                 "facts of earlier patches, the same for each file");
  app.add_option("--held-out", arguments.held_out, "text or JSONL whose perplexity is measured");
  add_chat(app, arguments.chat);
  add_threads(app, arguments.threads);
  add_json(app, arguments.is_json);
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

std::vector<NewFact> read_facts_to_learn(const LearnArguments& arguments) {
  std::vector<NewFact> facts = read_new_facts(arguments.facts);
  if (!arguments.phrasings.empty()) {
    add_phrasings(facts, arguments.phrasings, PhrasingUse::kLearned);
  }
  if (!arguments.unseen_phrasings.empty()) {
    add_phrasings(facts, arguments.unseen_phrasings, PhrasingUse::kUnseen);
  }
  return facts;
}

Generator load_learner(const std::string& folder, const LearnArguments& arguments) {
  Generator generator(load_model(folder), load_tokenizer(folder));
  if (generator.model()->pool().is_empty()) {
    throw Error(folder + ": expected a model with memory layers, got one without a pool");
  }
  ask_as_told(generator, arguments.chat);
  return generator;
}

namespace {

std::vector<std::string> ask(Generator& generator, const std::vector<std::string>& questions) {
  GenerateOptions options;
  options.max_tokens = 64;
  std::vector<std::string> answers;
  for (Generation& answer : generator.ask(questions, options)) {
    answers.push_back(std::move(answer.text));
  }
  return answers;
}

}  // namespace

double Measure::take(Generator& generator) const {
  if (!text.empty()) return std::exp(score_text(generator, text).loss);
  if (!questions.empty()) {
    const std::vector<std::string> now = ask(generator, questions);
    double same = 0;
    for (std::size_t i = 0; i < now.size(); ++i) same += now[i] == answers[i] ? 1 : 0;
    return same / static_cast<double>(now.size());
  }
  return evaluate_facts(generator, facts).recall.value;
}

Measure Measure::with_prompts(const std::function<std::string(const std::string&)>& put) const {
  Measure other = *this;
  for (Fact& fact : other.facts) fact.prompt = put(fact.prompt);
  for (std::string& question : other.questions) question = put(question);
  return other;
}

void Measure::take_before(Generator& generator) {
  if (!text.empty()) {
    before = take(generator);
    return;
  }
  if (!questions.empty()) {
    answers = ask(generator, questions);
    before = 1;
    return;
  }
  const FactScores scores = evaluate_facts(generator, facts);
  expect_one_that_fits(generator, facts, scores);
  before = scores.recall.value;
  too_long = scores.cut.size();
  if (too_long > 0) label += ", " + std::to_string(too_long) + " longer than the context";
}

std::string Measure::text_of(double value) const {
  return text.empty() ? percent(value) : decimals(value);
}

void Measure::add_to(nlohmann::ordered_json& json, double value_after) const {
  nlohmann::ordered_json& place = file.empty() ? json[name] : json[name][file];
  place = {{"before", before}, {"after", value_after}};
  if (too_long > 0) place["too_long"] = too_long;
}

namespace {

// So many of them, drawn as in each other run.
std::vector<Fact> drawn(std::vector<Fact> list, std::int64_t count) {
  text::SplitMix64 random(1);
  text::shuffle(list, random);
  list.resize(static_cast<std::size_t>(count));
  return list;
}

}  // namespace

std::string progress_text(const LearnProgress& now) {
  const std::string loss = now.loss ? "loss " + decimals(*now.loss) + "  " : "";
  const std::string earlier =
      now.earlier > 0
          ? "  earlier " + std::to_string(now.earlier_recalled) + "/" + std::to_string(now.earlier)
          : "";
  return loss + "recalled " + std::to_string(now.recalled) + "/" + std::to_string(now.phrasings) +
         earlier;
}

std::vector<Measure> measures_of(const std::vector<NewFact>& facts,
                                 const LearnArguments& arguments) {
  std::vector<Measure> all;
  const auto recall = [&](const std::string& what, const std::string& name, std::vector<Fact> list,
                          std::optional<std::int64_t> most = {}) {
    if (list.empty()) return;
    std::string count = std::to_string(list.size());
    if (most && static_cast<std::int64_t>(list.size()) > *most) {
      list = drawn(std::move(list), *most);
      count = std::to_string(*most) + " of " + count;
    }
    all.push_back(
        {.label = "recall of " + count + " " + what, .name = name, .facts = std::move(list)});
  };
  std::vector<Fact> prompts, paraphrases;
  for (const NewFact& fact : facts) {
    prompts.push_back(fact.fact);
    for (const std::string& prompt : fact.paraphrases) {
      paraphrases.push_back({prompt, fact.fact.answer, fact.fact.place});
    }
  }
  recall("new facts", "recall", prompts);
  recall("paraphrases", "paraphrases", paraphrases, arguments.measured);
  recall("unseen phrasings", "unseen", unseen_phrasings(facts), arguments.measured);
  std::vector<Fact> known;
  std::vector<std::string> questions;
  for (const std::string& file : arguments.keep) {
    io::for_each_json_line(file, [&](const io::JsonField& line, const std::string& place) {
      const std::string& prompt = line.at("prompt").string();
      if (const auto answer = line.find("answer")) {
        known.push_back({prompt, answer->string(), place});
      } else {
        questions.push_back(prompt);
      }
    });
  }
  if (!arguments.keep.empty() && known.empty() && questions.empty()) {
    throw Error(text::listed(arguments.keep) + ": expected at least one line, got none");
  }
  recall("facts to keep", "keep", std::move(known));
  if (!questions.empty()) {
    all.push_back({.label = "own answers to " + std::to_string(questions.size()) + " questions",
                   .name = "own_answers",
                   .questions = std::move(questions)});
  }
  for (const std::string& file : arguments.earlier) {
    const std::vector<NewFact> earlier = read_new_facts(file);
    std::vector<Fact> phrasings = edit::learned_phrasings(earlier);
    const bool are_facts = phrasings.size() == earlier.size();
    recall((are_facts ? "earlier facts, " : "phrasings of earlier facts, ") + file, "earlier",
           std::move(phrasings), arguments.measured);
    all.back().file = file;
  }
  if (!arguments.held_out.empty()) {
    all.push_back(
        {.label = "perplexity of held-out text", .name = "perplexity", .text = arguments.held_out});
  }
  return all;
}

}  // namespace memlayers::cli

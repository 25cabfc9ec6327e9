// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/score_text.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "memlayers/evaluate.h"
#include "text/dataset.h"

namespace memlayers::cli {
namespace {

struct EvalArguments {
  std::string model;
  std::vector<std::string> facts, data, choices;
  std::optional<std::int64_t> limit, stride, window;
  std::int64_t batch_tokens = 8192, show = 0;
  AskArguments chat;
  std::optional<double> gate_below;
  std::string each;  // file for the score of each fact; empty: none
  int threads = 0;
  bool is_json = false;
};

nlohmann::ordered_json json_of(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

// The first facts with what the model answers.
void show_answers(Generator& generator, const std::vector<Fact>& facts, const FactScores& scores,
                  std::int64_t count) {
  std::vector<std::string> prompts;
  for (const Fact& fact : facts) {
    if (static_cast<std::int64_t>(prompts.size()) == count) break;
    prompts.push_back(fact.prompt);
  }
  GenerateOptions options;
  options.max_tokens = 64;
  const std::vector<Generation> answers = generator.ask(prompts, options);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::cout << (scores.facts[i].is_recalled ? "+ " : "- ") << io::shown(prompts[i])
              << "\n    wanted: " << io::shown(facts[i].answer)
              << "\n    got:   " << io::shown(answers[i].text) << "\n";
  }
}

// One object a line, in the order of the facts.
void write_scores(const std::string& path, const FactScores& scores) {
  std::string text;
  for (const FactScore& score : scores.facts) {
    text += nlohmann::ordered_json{{"recalled", score.is_recalled},
                                   {"nll", score.nll},
                                   {"tokens", score.tokens},
                                   {"too_long", score.is_cut}}
                .dump() +
            "\n";
  }
  io::write_atomic(io::posix(), path, text);
}

void evaluate_and_print_facts(Generator& generator, const EvalArguments& arguments) {
  std::vector<Fact> facts = read_facts(arguments.facts);
  if (arguments.limit && *arguments.limit < static_cast<std::int64_t>(facts.size())) {
    facts.resize(*arguments.limit);
  }
  FactScores scores;
  {
    ProgressBar bar("facts", static_cast<std::int64_t>(facts.size()));
    scores = evaluate_facts(generator, facts, arguments.batch_tokens,
                            [&](std::int64_t done) { bar.update(done); });
    bar.finish();
  }
  expect_one_that_fits(generator, facts, scores);  // so that there is a likelihood
  if (!scores.cut.empty()) {
    std::cerr << "memlayers: warning: " << scores.cut.size() << " of " << facts.size()
              << " facts are longer than the model's context (" << places_of(facts, scores.cut)
              << "): they count as not recalled, and the likelihood is that of the others\n";
  }
  if (!arguments.each.empty()) write_scores(arguments.each, scores);
  if (arguments.is_json) {
    nlohmann::ordered_json json{{"kind", "facts"},
                                {"facts", facts.size()},
                                {"too_long", scores.cut.size()},
                                {"recall", json_of(scores.recall)},
                                {"nll", json_of(scores.nll.value())},
                                {"nll_per_token", json_of(scores.nll_per_token.value())}};
    if (arguments.gate_below) {
      json["memory_is_off"] = std::ranges::count_if(scores.facts, &FactScore::memory_is_off);
    }
    print_json(json);
    return;
  }
  const auto interval = [](const Estimate& e, auto&& text) {
    return text(e.low) + " to " + text(e.high);
  };
  std::cout << table(
      {{"", "value", "95 % interval"},
       {"exact recall of " + std::to_string(facts.size()) + " facts", percent(scores.recall.value),
        interval(scores.recall, percent)},
       {"negative log-likelihood, nats an answer", decimals(scores.nll->value),
        interval(*scores.nll, decimals)},
       {"negative log-likelihood, nats a token", decimals(scores.nll_per_token->value),
        interval(*scores.nll_per_token, decimals)}});
  if (arguments.show > 0) show_answers(generator, facts, scores, arguments.show);
}

TextScore score_data(Generator& generator, const EvalArguments& arguments) {
  std::optional<ProgressBar> bar;
  const auto progress = [&](std::int64_t done, std::int64_t all) {
    if (!bar) bar.emplace(arguments.stride ? "tokens" : "batches", all);
    bar->update(done);
  };
  TextScore score;
  if (arguments.stride) {
    score = evaluate_windows(generator, arguments.data, DataFormat::kAuto,
                             {.stride = *arguments.stride,
                              .window = arguments.window,
                              .batch_tokens = arguments.batch_tokens},
                             progress);
  } else {
    score = score_text(generator, arguments.data, arguments.batch_tokens, progress);
  }
  if (bar) bar->finish();
  return score;
}

void evaluate_and_print_text(Generator& generator, const EvalArguments& arguments) {
  const TextScore score = score_data(generator, arguments);
  const std::optional<Estimate>& loss = score.interval;
  if (arguments.is_json) {
    nlohmann::ordered_json json{{"kind", "data"},
                                {"tokens", score.tokens},
                                {"loss", score.loss},
                                {"perplexity", std::exp(score.loss)}};
    if (arguments.stride) {
      json["stride"] = *arguments.stride;
      json["window"] = arguments.window.value_or(generator.model()->config().context);
    }
    if (loss) {
      json["loss_interval"] = {{"low", loss->low}, {"high", loss->high}};
      json["perplexity_interval"] = {{"low", std::exp(loss->low)}, {"high", std::exp(loss->high)}};
    }
    print_json(json);
    return;
  }
  std::vector<std::vector<std::string>> rows{{"tokens", std::to_string(score.tokens)},
                                             {"loss, nats a token", decimals(score.loss)},
                                             {"perplexity", decimals(std::exp(score.loss))}};
  if (loss) {
    rows.insert(rows.begin(), {"", "value", "95 % interval (blocks of tokens)"});
    rows[2].push_back(decimals(loss->low) + " to " + decimals(loss->high));
    rows[3].push_back(decimals(std::exp(loss->low)) + " to " + decimals(std::exp(loss->high)));
  }
  std::cout << table(rows);
}

// The first questions with what the model chose.
void show_choices(const std::vector<Question>& questions, const ChoiceScores& scores,
                  std::int64_t count) {
  for (std::size_t i = 0; i < questions.size() && static_cast<std::int64_t>(i) < count; ++i) {
    const Question& question = questions[i];
    const QuestionScore& score = scores.questions[i];
    if (score.log_likelihoods.empty()) continue;  // too long
    std::cout << (score.chosen == question.answer ? "+ " : "- ") << io::shown(question.question)
              << "\n    wanted: " << io::shown(question.choices[question.answer])
              << "\n    chosen: " << io::shown(question.choices[score.chosen]) << "\n";
  }
}

void evaluate_and_print_choices(Generator& generator, const EvalArguments& arguments) {
  std::vector<Question> questions = read_questions(arguments.choices);
  if (arguments.limit && *arguments.limit < static_cast<std::int64_t>(questions.size())) {
    questions.resize(*arguments.limit);
  }
  std::int64_t choices = 0;
  for (const Question& question : questions) {
    choices += static_cast<std::int64_t>(question.choices.size());
  }
  ChoiceScores scores;
  {
    ProgressBar bar("choices", choices);
    scores = evaluate_choices(generator, questions, arguments.batch_tokens,
                              [&](std::int64_t done) { bar.update(done); });
    if (scores.accuracy) bar.finish();
  }
  std::vector<std::string> cut;
  for (const std::size_t i : scores.cut) cut.push_back(questions[i].place);
  const std::string context = std::to_string(generator.model()->config().context) + " tokens";
  if (!scores.accuracy) {
    throw Error(io::shown(text::listed(cut)) + ": expected a question that fits the model's " +
                "context of " + context + " with each choice, got none among " +
                std::to_string(questions.size()));
  }
  if (!cut.empty()) {
    print_warning(std::to_string(cut.size()) + " of " + std::to_string(questions.size()) +
                  " questions do not fit the model's context of " + context + " (" +
                  text::listed(cut) + "): the figures are those of the others");
  }
  const std::size_t scored = questions.size() - cut.size();
  if (arguments.is_json) {
    print_json({{"kind", "choices"},
                {"questions", questions.size()},
                {"too_long", cut.size()},
                {"acc", json_of(*scores.accuracy)},
                {"acc_norm", json_of(*scores.accuracy_by_length)}});
    return;
  }
  const auto row = [](const char* name, const Estimate& e) -> std::vector<std::string> {
    return {name, percent(e.value), percent(e.low) + " to " + percent(e.high)};
  };
  std::cout << table({{std::to_string(scored) + " questions", "value", "95 % interval (Wilson)"},
                      row("acc: the most likely choice is right", *scores.accuracy),
                      row("acc_norm: likelihood a character", *scores.accuracy_by_length)});
  show_choices(questions, scores, arguments.show);
}

void check(const EvalArguments& arguments) {
  const int kinds = static_cast<int>(!arguments.facts.empty()) +
                    static_cast<int>(!arguments.data.empty()) +
                    static_cast<int>(!arguments.choices.empty());
  if (kinds != 1) {
    throw UsageError("eval: expected one of --facts, --data and --choices, got " +
                     std::string(kinds == 0 ? "none" : "several"));
  }
  if (arguments.gate_below && arguments.facts.empty()) {
    throw UsageError("eval: --gate-below: expected --facts beside it, got none");
  }
  if (arguments.window && !arguments.stride) {
    throw UsageError("eval: --window: expected --stride beside it, got none");
  }
  if (arguments.stride && arguments.data.empty()) {
    throw UsageError("eval: --stride: expected --data beside it, got none");
  }
  if (!arguments.each.empty() && arguments.facts.empty()) {
    throw UsageError("eval: --each: expected --facts beside it, got none");
  }
  if (arguments.limit && *arguments.limit < 1) {
    throw UsageError("eval: --limit: expected at least 1, got " + std::to_string(*arguments.limit));
  }
}

int evaluate(const EvalArguments& arguments) {
  check(arguments);
  set_threads(arguments.threads);
  Generator generator = Generator::load(arguments.model);
  if (!arguments.facts.empty()) {
    ask_as_told(generator, arguments.chat);
    judge_as_told(generator, arguments.gate_below, /*tells=*/false);
    evaluate_and_print_facts(generator, arguments);
  } else if (!arguments.choices.empty()) {
    evaluate_and_print_choices(generator, arguments);
  } else {
    evaluate_and_print_text(generator, arguments);
  }
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "Measure recall of facts, perplexity of text, or multiple choice",
          "memlayers eval runs/demo --facts examples/facts/facts.jsonl --show 5\n"
          "  memlayers eval runs/demo --data held_out.txt --json\n"
          "  memlayers eval MODEL --data book.txt --stride 512 --window 2048\n"
          "  memlayers eval MODEL --choices questions.jsonl",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<EvalArguments>();
            add_model(app, a->model);
            app.add_option("--facts", a->facts, "JSONL files with \"prompt\" and \"answer\"");
            app.add_option("--data", a->data, "text or JSONL files, or folders of them");
            app.add_option("--choices", a->choices,
                           "JSONL files with \"question\", \"choices\" and \"answer\"");
            app.add_option("--stride", a->stride,
                           "with --data: windows that begin so many tokens behind each other")
                ->check(CLI::PositiveNumber);
            app.add_option("--window", a->window,
                           "tokens of such a window; without it, the model's context")
                ->check(CLI::PositiveNumber);
            app.add_option("--limit", a->limit, "the first facts or questions only");
            app.add_option("--batch-tokens", a->batch_tokens, "tokens of a batch, at most")
                ->capture_default_str()
                ->check(CLI::PositiveNumber);
            app.add_option("--each", a->each,
                           "with --facts: a file to write the score of each fact to, as JSONL");
            app.add_option("--show", a->show, "print the first of them with the model's answers");
            add_chat(app, a->chat);
            add_gate(app, a->gate_below);
            add_threads(app, a->threads);
            add_json(app, a->is_json);
            return [a] { return evaluate(*a); };
          }};
}

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/score_text.h"
#include "cli/terminal.h"
#include "memlayers/error.h"
#include "memlayers/evaluate.h"

namespace memlayers::cli {
namespace {

struct EvalArguments {
  std::string model;
  std::vector<std::string> facts, data;
  std::optional<std::int64_t> limit;
  std::int64_t batch_tokens = 8192, show = 0;
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
  const std::vector<Generation> answers = generator.generate(prompts, options);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::cout << (scores.facts[i].is_recalled ? "+ " : "- ") << prompts[i]
              << "\n    wanted: " << facts[i].answer << "\n    got:   " << answers[i].text << "\n";
  }
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
  if (arguments.is_json) {
    const nlohmann::ordered_json line = {{"kind", "facts"},
                                         {"facts", facts.size()},
                                         {"recall", json_of(scores.recall)},
                                         {"nll", json_of(scores.nll)},
                                         {"nll_per_token", json_of(scores.nll_per_token)}};
    std::cout << line.dump() << '\n';
    return;
  }
  const auto interval = [](const Estimate& e, auto&& text) {
    return text(e.low) + " to " + text(e.high);
  };
  std::cout << table(
      {{"", "value", "95 % interval"},
       {"exact recall of " + std::to_string(facts.size()) + " facts", percent(scores.recall.value),
        interval(scores.recall, percent)},
       {"negative log-likelihood, nats an answer", decimals(scores.nll.value),
        interval(scores.nll, decimals)},
       {"negative log-likelihood, nats a token", decimals(scores.nll_per_token.value),
        interval(scores.nll_per_token, decimals)}});
  if (arguments.show > 0) show_answers(generator, facts, scores, arguments.show);
}

void evaluate_and_print_text(Generator& generator, const EvalArguments& arguments) {
  const TextScore score = score_text(generator, arguments.data, arguments.batch_tokens);
  if (arguments.is_json) {
    const nlohmann::ordered_json line = {{"kind", "data"},
                                         {"tokens", score.tokens},
                                         {"loss", score.loss},
                                         {"perplexity", std::exp(score.loss)}};
    std::cout << line.dump() << '\n';
    return;
  }
  std::cout << table({{"tokens", std::to_string(score.tokens)},
                      {"loss, nats a token", decimals(score.loss)},
                      {"perplexity", decimals(std::exp(score.loss))}});
}

int evaluate(const EvalArguments& arguments) {
  if (arguments.facts.empty() == arguments.data.empty()) {
    throw UsageError("eval: expected one of --facts and --data, got " +
                     std::string(arguments.facts.empty() ? "none" : "both"));
  }
  if (arguments.limit && *arguments.limit < 1) {
    throw UsageError("eval: --limit: expected at least 1, got " + std::to_string(*arguments.limit));
  }
  set_threads(arguments.threads);
  Generator generator = Generator::load(arguments.model);
  if (!arguments.facts.empty()) {
    evaluate_and_print_facts(generator, arguments);
  } else {
    evaluate_and_print_text(generator, arguments);
  }
  return 0;
}

}  // namespace

Command eval_command() {
  return {"eval", "Measure recall of facts, or the loss of held-out text",
          "memlayers eval runs/demo --facts examples/facts/facts.jsonl --show 5\n"
          "  memlayers eval runs/demo --data held_out.txt --json",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<EvalArguments>();
            app.add_option("model", a->model, "model folder, or a run's folder")->required();
            app.add_option("--facts", a->facts, "JSONL files with \"prompt\" and \"answer\"");
            app.add_option("--data", a->data, "text or JSONL files, or folders of them");
            app.add_option("--limit", a->limit, "the first facts only");
            app.add_option("--batch-tokens", a->batch_tokens, "tokens of a batch, at most")
                ->capture_default_str()
                ->check(CLI::PositiveNumber);
            app.add_option("--show", a->show, "print the first facts with the model's answers");
            app.add_option("--threads", a->threads, "CPU threads (0: all cores)")
                ->capture_default_str();
            app.add_flag("--json", a->is_json, "one JSON object on standard output");
            return [a] { return evaluate(*a); };
          }};
}

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "memlayers/error.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"
#include "train/fact_row.h"
#include "train/mean.h"
#include "train/run_testing.h"

namespace memlayers {
namespace {

using testing::error_of;
using testing::says;
using testing::TempDir;
using testing::tiny_generator;
using testing::tiny_tokenizer;

// A model that has learned some of forty facts, and the facts.
struct Learned {
  TempDir dir;
  std::vector<Fact> facts;
  std::unique_ptr<Generator> generator;
};

Learned& learned() {
  static Learned* const made = [] {
    auto* l = new Learned;
    testing::write_facts(l->dir / "facts.jsonl");
    TrainConfig config = testing::tiny_config(l->dir / "run", l->dir / "facts.jsonl");
    config.train.steps = 250;  // enough for some of the facts, too few for all
    Trainer(config).run();
    l->facts = read_facts({l->dir / "facts.jsonl"});
    l->generator = std::make_unique<Generator>(Generator::load(l->dir / "run"));
    return l;
  }();
  return *made;
}

TEST(EvaluateFacts, RecallIsWhatGreedyGenerationRecalls) {
  Learned& l = learned();
  const FactScores scores = evaluate_facts(*l.generator, l.facts);
  ASSERT_EQ(scores.facts.size(), l.facts.size());
  const Tokenizer& tokenizer = l.generator->tokenizer();
  GenerateOptions options;
  options.max_tokens = 30;
  int recalled = 0;
  for (std::size_t i = 0; i < l.facts.size(); ++i) {
    std::vector<std::int32_t> prompt = tokenizer.encode(l.facts[i].prompt);
    if (tokenizer.bos()) prompt.insert(prompt.begin(), *tokenizer.bos());
    options.ignore_eos = true;  // the end must come as well, and at its place
    std::vector<std::int32_t> wanted = tokenizer.encode_continuation(l.facts[i].answer);
    wanted.push_back(tokenizer.eos().value());
    std::vector<std::int32_t> got = l.generator->generate_tokens({prompt}, options)[0];
    got.resize(wanted.size());
    EXPECT_EQ(scores.facts[i].is_recalled, got == wanted) << l.facts[i].prompt;
    EXPECT_EQ(scores.facts[i].tokens, static_cast<std::int64_t>(wanted.size()));
    recalled += got == wanted;
  }
  EXPECT_GT(recalled, 0) << "nothing learned: nothing tested";
  EXPECT_LT(recalled, 40) << "all learned: the other case is not tested";
  EXPECT_DOUBLE_EQ(scores.recall.value, recalled / 40.0);
}

TEST(EvaluateFacts, ScoresDoNotDependOnTheBatches) {
  Learned& l = learned();
  const FactScores wide = evaluate_facts(*l.generator, l.facts);
  std::int64_t told = 0;
  const FactScores narrow = evaluate_facts(*l.generator, l.facts, /*batch_tokens=*/1,
                                           [&](std::int64_t done) { EXPECT_EQ(done, ++told); });
  EXPECT_EQ(told, 40);
  for (std::size_t i = 0; i < l.facts.size(); ++i) {
    EXPECT_EQ(wide.facts[i].is_recalled, narrow.facts[i].is_recalled);
    // Float32 sums in another order, a few tokens of a few nats.
    EXPECT_NEAR(wide.facts[i].nll, narrow.facts[i].nll, 1e-4);
  }
}

TEST(EvaluateFacts, TheLikelihoodIsThatOfAForwardPass) {
  Learned& l = learned();
  const Fact& fact = l.facts[7];
  const Tokenizer& tokenizer = l.generator->tokenizer();
  std::vector<std::int32_t> tokens = tokenizer.encode(fact.prompt);
  if (tokenizer.bos()) tokens.insert(tokens.begin(), *tokenizer.bos());
  const std::size_t answer = tokens.size();
  for (const std::int32_t t : tokenizer.encode_continuation(fact.answer)) tokens.push_back(t);
  tokens.push_back(tokenizer.eos().value());
  const torch::NoGradGuard no_gradient;
  const at::Tensor p =
      l.generator->model()
          ->forward(torch::tensor(tokens, torch::kInt).to(torch::kLong).unsqueeze(0))
          .log_softmax(-1);
  double nll = 0;
  for (std::size_t t = answer; t < tokens.size(); ++t) {
    nll -= p[0][static_cast<std::int64_t>(t) - 1][tokens[t]].item<double>();
  }
  const FactScores scores = evaluate_facts(*l.generator, {fact});
  EXPECT_NEAR(scores.facts[0].nll, nll, 1e-4);
  EXPECT_DOUBLE_EQ(scores.nll->value, scores.facts[0].nll);
  EXPECT_DOUBLE_EQ(scores.nll_per_token->value,
                   scores.facts[0].nll / static_cast<double>(scores.facts[0].tokens));
}

TEST(EvaluateFacts, IntervalsHoldTheValueAndAreWilsonsForRecall) {
  Learned& l = learned();
  const FactScores scores = evaluate_facts(*l.generator, l.facts);
  const double n = 40, z = 1.959963984540054, p = scores.recall.value;
  // Wilson's limits are where (p - x)^2 = z^2 x (1 - x) / n.
  for (const double x : {scores.recall.low, scores.recall.high}) {
    EXPECT_NEAR((p - x) * (p - x), z * z * x * (1 - x) / n, 1e-12);
  }
  double mean = 0, squares = 0;
  for (const FactScore& fact : scores.facts) mean += fact.nll / n;
  for (const FactScore& fact : scores.facts) squares += (fact.nll - mean) * (fact.nll - mean);
  EXPECT_NEAR(scores.nll->value, mean, 1e-9);
  EXPECT_NEAR(scores.nll->high - scores.nll->value, z * std::sqrt(squares / (n - 1) / n), 1e-9);
  EXPECT_LT(scores.nll_per_token->low, scores.nll_per_token->value);
  // One fact says nothing about the spread; recall of 1 or 0 still has a limit below or above.
  const FactScores one = evaluate_facts(*l.generator, {l.facts[0]});
  EXPECT_EQ(one.nll->low, one.nll->high);
  EXPECT_GT(one.recall.high - one.recall.low, 0.5);
  EXPECT_GE(one.recall.low, 0);
  EXPECT_LE(one.recall.high, 1);
}

TEST(EvaluateFacts, AFactThatDoesNotFitIsNotRecalled) {
  Generator generator = tiny_generator();
  std::string words;
  for (int i = 0; i < 60; ++i) words += " otter";
  const FactScores scores =
      evaluate_facts(generator, {{"the otter", words}, {words, "red"}, {"the", "red"}});
  EXPECT_FALSE(scores.facts[0].is_recalled);
  EXPECT_GT(scores.facts[0].tokens, 0) << "the part that fits counts";
  EXPECT_TRUE(std::isfinite(scores.facts[0].nll));
  EXPECT_FALSE(scores.facts[1].is_recalled);
  EXPECT_EQ(scores.facts[1].tokens, 0);
  EXPECT_GT(scores.facts[2].tokens, 0);
  EXPECT_TRUE(std::isfinite(scores.nll_per_token->value));
  // Alone, too: a batch without a single token to score.
  const FactScores alone = evaluate_facts(generator, {{words, "red"}});
  EXPECT_EQ(alone.facts[0].tokens, 0);
  EXPECT_FALSE(alone.nll.has_value()) << "nothing was scored";
  EXPECT_FALSE(alone.nll_per_token.has_value());
}

TEST(EvaluateFacts, TheLikelihoodIsOfTheFactsThatFit) {
  Generator generator = tiny_generator();
  std::string words;
  for (int i = 0; i < 60; ++i) words += " otter";
  const FactScores fitting = evaluate_facts(generator, {{"the", "red"}});
  const FactScores all =
      evaluate_facts(generator, {{words, "red"}, {"the", "red"}, {"the otter", words}});
  EXPECT_EQ(all.cut, (std::vector<std::size_t>{0, 2}));
  // In a batch of other facts: float32 sums in another order, three tokens of some nats.
  EXPECT_NEAR(all.nll->value, fitting.nll->value, 1e-5);
  EXPECT_NEAR(all.nll_per_token->value, fitting.nll_per_token->value, 1e-5);
  EXPECT_TRUE(fitting.cut.empty());
}

TEST(FactRow, AnAnswerWithoutATokenIsNamed) {
  const train::FactRow empty{.tokens = {1, 2}, .answer_from = 2};
  const auto error = [&](const Fact& fact) {
    return error_of([&] { train::check_has_answer(empty, fact, 4); });
  };
  EXPECT_TRUE(says(error({"a", " "}), {"fact 5: answer", "none"}));
  EXPECT_TRUE(says(error({"a", " ", "f.jsonl:9"}), {"f.jsonl:9: answer"}));
  EXPECT_NO_THROW(train::check_has_answer({.tokens = {1, 2}, .answer_from = 1}, {"a", "b"}, 0));
}

TEST(Mean, CannotBeReadOfNothing) {
  train::Mean mean;
  EXPECT_TRUE(says(error_of([&] { mean.value("held_out.txt", "token to predict"); }),
                   {"held_out.txt: expected at least one token to predict, got none"}));
  mean.add(3, 0);
  EXPECT_TRUE(mean.is_empty());
  mean.add(2, 3);
  mean.add(4);
  EXPECT_DOUBLE_EQ(mean.value("x", "y"), 2.5);
}

TEST(EvaluateFacts, RefusesAnEmptyList) {
  Generator generator = tiny_generator();
  EXPECT_TRUE(says(error_of([&] { evaluate_facts(generator, {}); }), {"facts", "none"}));
}

TEST(EvaluateText, LossIsTheMeanOverTheTargets) {
  Learned& l = learned();
  const FactScores facts = evaluate_facts(*l.generator, l.facts);
  std::int64_t tokens = 0;
  double nll = 0;
  for (const FactScore& fact : facts.facts) {
    tokens += fact.tokens;
    nll += fact.nll;
  }
  const TextScore text =
      evaluate_text(*l.generator, {l.dir / "facts.jsonl"}, DataFormat::kAuto, l.dir / "cache");
  EXPECT_EQ(text.tokens, tokens);
  EXPECT_NEAR(text.loss, nll / static_cast<double>(tokens), 1e-4);
}

TEST(ReadFacts, KnowTheirPlaces) {
  const TempDir dir;
  testing::write_file(dir / "f.jsonl", R"({"prompt":"a","answer":"b"})"
                                       "\n\n"
                                       R"({"prompt":"c","answer":"d"})");
  const std::vector<Fact> facts = read_facts({dir / "f.jsonl"});
  ASSERT_EQ(facts.size(), 2U);
  EXPECT_EQ(facts[1].place, (dir / "f.jsonl") + ":3") << "lines without a fact count";
}

TEST(EvaluateText, DocumentsLongerThanTheContextCountWhole) {
  Generator generator = tiny_generator();
  const TempDir dir;
  std::string words = "the";
  for (int i = 0; i < 80; ++i) words += " otter";
  testing::write_file(dir / "long.txt", words);
  const auto tokens = static_cast<std::int64_t>(tiny_tokenizer()->encode(words).size());
  ASSERT_GT(tokens, 80);
  const TextScore score =
      evaluate_text(generator, {dir / "long.txt"}, DataFormat::kAuto, dir / "cache");
  // With BOS and EOS each token but the first of a row is predicted.
  EXPECT_GE(score.tokens, tokens + 1 - tokens / 40);
  EXPECT_LE(score.tokens, tokens + 1);
}

TEST(ReadFacts, NameFileAndLineOfWhatIsNoFact) {
  const TempDir dir;
  const std::string good = R"({"prompt":"a","answer":"b"})";
  const auto error = [&](const std::string& text) {
    testing::write_file(dir / "f.jsonl", text);
    return error_of([&] { read_facts({dir / "f.jsonl"}); });
  };
  EXPECT_TRUE(says(error(good + "\n" + R"({"text":"a"})" + "\n"), {"f.jsonl", "fact 2"}));
  EXPECT_TRUE(says(error(good + "\n{\n"), {"f.jsonl", "2"}));
  EXPECT_TRUE(says(error(""), {"f.jsonl"}));
  EXPECT_TRUE(says(error_of([&] { read_facts({dir / "none"}); }), {dir / "none"}));
}

}  // namespace
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "support/testing.h"

namespace memlayers::generate {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::says;

const std::vector<float> kLogits{1.0F, 3.0F, 2.0F, 0.0F, 2.0F};

// How often each token comes in `draws` draws.
std::map<std::int32_t, int> count(const GenerateOptions& options, int draws) {
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sample(kLogits, options, i)];
  return counts;
}

// Probabilities of the tokens in `kept`, at a temperature.
std::map<std::int32_t, double> softmax(const std::vector<std::int32_t>& kept, double temperature) {
  std::map<std::int32_t, double> p;
  double total = 0;
  for (const std::int32_t token : kept) total += p[token] = std::exp(kLogits[token] / temperature);
  for (auto& [token, share] : p) share /= total;
  return p;
}

// The chi-square statistic has mean df and variance 2 df; six deviations above its mean is beyond
// chance (below 1e-6 for the small df here), so that a fixed seed passes unless the shares are off.
void expect_shares(const GenerateOptions& options, const std::map<std::int32_t, double>& p) {
  constexpr int kDraws = 70000;
  const auto counts = count(options, kDraws);
  double chi_square = 0;
  for (const auto& [token, seen] : counts) {
    EXPECT_TRUE(p.contains(token)) << "token " << token << " came " << seen << " times";
  }
  for (const auto& [token, share] : p) {
    const double expected = share * kDraws;
    const double seen = counts.contains(token) ? counts.at(token) : 0;
    chi_square += (seen - expected) * (seen - expected) / expected;
  }
  const double df = static_cast<double>(p.size()) - 1;
  EXPECT_LE(chi_square, df + 6 * std::sqrt(2 * df));
}

GenerateOptions at_temperature(double temperature) {
  GenerateOptions options;
  options.temperature = temperature;
  options.seed = 11;
  return options;
}

TEST(Sampler, DrawsByTheSoftmaxOfTheLogits) {
  for (const double temperature : {0.5, 1.0, 3.0}) {
    expect_shares(at_temperature(temperature), softmax({0, 1, 2, 3, 4}, temperature));
  }
}

TEST(Sampler, TopKKeepsTheMostLikelyAndTheLowerIdOfEquals) {
  GenerateOptions options = at_temperature(1);
  options.top_k = 2;
  expect_shares(options, softmax({1, 2}, 1));
  options.top_k = 3;
  expect_shares(options, softmax({1, 2, 4}, 1));
  options.top_k = 100;  // more than there are
  expect_shares(options, softmax({0, 1, 2, 3, 4}, 1));
}

TEST(Sampler, TopPKeepsTheTokenThatCrossesIt) {
  const double first = softmax({0, 1, 2, 3, 4}, 1).at(1);  // 0.53
  GenerateOptions options = at_temperature(1);
  options.top_p = first - 0.01;
  expect_shares(options, {{1, 1.0}});
  options.top_p = first + 0.01;
  expect_shares(options, softmax({1, 2}, 1));
  options.top_p = 1.0;
  expect_shares(options, softmax({0, 1, 2, 3, 4}, 1));
  options.top_p = 1e-300;
  expect_shares(options, {{1, 1.0}});
}

TEST(Sampler, TopPCountsAfterTopK) {
  GenerateOptions options = at_temperature(1);
  options.top_k = 2;
  options.top_p = 0.7;  // of all it would need two, of the two kept the first has 0.73
  expect_shares(options, {{1, 1.0}});
}

TEST(Sampler, GreedyTakesTheLowestOfEquals) {
  const std::vector<float> ties{1, 5, 5, 5};
  EXPECT_EQ(sample(ties, {}, 0), 1);
  GenerateOptions one = at_temperature(1);
  one.top_k = 1;
  EXPECT_EQ(sample(ties, one, 0), 1);
}

TEST(Sampler, ATinyTemperatureIsGreedyAndAHugeOneIsUniform) {
  EXPECT_EQ(count(at_temperature(1e-300), 700), (std::map<std::int32_t, int>{{1, 700}}));
  expect_shares(at_temperature(1e300), {{0, 0.2}, {1, 0.2}, {2, 0.2}, {3, 0.2}, {4, 0.2}});
}

TEST(Sampler, ForbiddenTokensNeverCome) {
  const float minus = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits{minus, 0, minus, 0, minus};
  std::set<std::int32_t> seen;
  for (int i = 0; i < 200; ++i) seen.insert(sample(logits, at_temperature(1), i));
  EXPECT_EQ(seen, (std::set<std::int32_t>{1, 3}));
}

TEST(Sampler, ADrawDependsOnSeedAndPositionAlone) {
  const GenerateOptions options = at_temperature(2);
  GenerateOptions other = options;
  other.seed = 12;
  int same_seed = 0, same_place = 0;
  for (int i = 0; i < 300; ++i) {
    const std::int32_t token = sample(kLogits, options, i);
    EXPECT_EQ(token, sample(kLogits, options, i));
    same_seed += token == sample(kLogits, other, i);
    same_place += token == sample(kLogits, options, i + 1);
  }
  EXPECT_LT(same_seed, 200);
  EXPECT_LT(same_place, 200);
}

TEST(Sampler, MinPKeepsWhatHasAShareOfTheGreatestProbability) {
  GenerateOptions options = at_temperature(1);
  options.min_p = std::exp(-1.0) * 0.99;  // tokens 2 and 4 are e times less likely than 1
  expect_shares(options, softmax({1, 2, 4}, 1));
  options.min_p = std::exp(-1.0) * 1.01;
  expect_shares(options, {{1, 1.0}});
  options.min_p = 0.0;
  expect_shares(options, softmax({0, 1, 2, 3, 4}, 1));
  options.min_p = 1.0;
  expect_shares(options, {{1, 1.0}});
}

TEST(Sampler, ManyTokensAreDrawnByTheirSharesToo) {  // more than are sorted at first
  std::vector<float> logits(3000);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i * 7919 % 3000);
  GenerateOptions options = at_temperature(1500);
  constexpr int kDraws = 20000;
  double mean = 0;
  for (int i = 0; i < kDraws; ++i) {
    mean += logits[static_cast<std::size_t>(sample(logits, options, i))] / kDraws;
  }
  double total = 0, wanted = 0, square = 0;
  for (const float logit : logits) {
    const double p = std::exp(logit / 1500);
    total += p;
    wanted += p * logit;
    square += p * logit * logit;
  }
  wanted /= total;
  const double deviation = std::sqrt((square / total - wanted * wanted) / kDraws);
  EXPECT_NEAR(mean, wanted, 6 * deviation);
  options.top_k = 700;
  for (int i = 0; i < 2000; ++i) {
    EXPECT_GE(logits[static_cast<std::size_t>(sample(logits, options, i))], 2300);
  }
}

TEST(SeenTokens, ChangeTheLogitsAsTheOptionsSay) {
  const std::vector<std::int32_t> prompt{0, 1, 1};
  SeenTokens seen(prompt);
  for (const std::int32_t token : {1, 2, 2}) seen.add(token);
  const auto changed = [&](const GenerateOptions& options) {
    std::vector<float> logits{-1, 3, 2, 0.5F, 2};
    seen.change(options, logits);
    return logits;
  };
  GenerateOptions options;
  EXPECT_FALSE(changes_logits(options));
  EXPECT_EQ(changed(options), (std::vector<float>{-1, 3, 2, 0.5F, 2}));
  options.repetition_penalty = 2;  // once, however often; of the prompt's tokens too
  EXPECT_TRUE(changes_logits(options));
  EXPECT_EQ(changed(options), (std::vector<float>{-2, 1.5F, 1, 0.5F, 2}));
  options = {};
  options.presence_penalty = 0.5;  // of the answer's alone
  EXPECT_EQ(changed(options), (std::vector<float>{-1, 2.5F, 1.5F, 0.5F, 2}));
  options.frequency_penalty = 0.25;
  EXPECT_EQ(changed(options), (std::vector<float>{-1, 2.25F, 1, 0.5F, 2}));
  options = {};
  options.logit_bias = {{3, 100}, {0, -2.5}, {7, 1}};  // 7: the tokenizer has none
  EXPECT_EQ(changed(options), (std::vector<float>{-3.5F, 3, 2, 100.5F, 2}));
  options.repetition_penalty = 2;  // after the bias
  EXPECT_EQ(changed(options), (std::vector<float>{-7, 1.5F, 1, 100.5F, 2}));
}

TEST(GenerateOptions, NameTheFirstWrongField) {
  const auto error = [](const std::function<void(GenerateOptions&)>& change) {
    GenerateOptions options;
    change(options);
    return error_of([&] { options.validate(); });
  };
  EXPECT_TRUE(says(error([](auto& o) { o.max_tokens = -1; }), {"max_tokens", "-1"}));
  EXPECT_TRUE(says(error([](auto& o) { o.temperature = -0.5; }), {"temperature", "-0.5"}));
  EXPECT_TRUE(says(error([](auto& o) { o.temperature = std::nan(""); }), {"temperature", "nan"}));
  EXPECT_TRUE(says(error([](auto& o) { o.temperature = HUGE_VAL; }), {"temperature", "inf"}));
  EXPECT_TRUE(says(error([](auto& o) { o.top_k = 0; }), {"top_k", "0"}));
  EXPECT_TRUE(says(error([](auto& o) { o.top_p = 0.0; }), {"top_p", "0"}));
  EXPECT_TRUE(says(error([](auto& o) { o.top_p = 1.5; }), {"top_p", "1.5"}));
  EXPECT_TRUE(says(error([](auto& o) { o.top_p = std::nan(""); }), {"top_p", "nan"}));
  EXPECT_TRUE(says(error([](auto& o) { o.stop = {"a", ""}; }), {"stop"}));
  EXPECT_TRUE(says(error([](auto& o) { o.min_p = 1.5; }), {"min_p", "1.5"}));
  EXPECT_TRUE(says(error([](auto& o) { o.repetition_penalty = 0; }), {"repetition_penalty", "0"}));
  EXPECT_TRUE(says(error([](auto& o) { o.presence_penalty = HUGE_VAL; }), {"presence_penalty"}));
  EXPECT_TRUE(says(error([](auto& o) { o.frequency_penalty = std::nan(""); }), {"frequency"}));
  EXPECT_TRUE(says(error([](auto& o) { o.logit_bias = {{-1, 1}}; }), {"logit_bias", "-1"}));
  EXPECT_TRUE(says(error([](auto& o) { o.logit_bias = {{1, HUGE_VAL}}; }), {"logit_bias", "inf"}));
  EXPECT_TRUE(says(error([](auto& o) { o.logprobs = -1; }), {"logprobs", "-1"}));
  EXPECT_TRUE(says(error([](auto& o) { o.prompt_logprobs = true; }), {"prompt_logprobs"}));
  EXPECT_NO_THROW(GenerateOptions{}.validate());
}

}  // namespace
}  // namespace memlayers::generate

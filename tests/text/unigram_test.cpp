// SPDX-License-Identifier: Apache-2.0
#include "text/unigram.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "text/testing.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

using Ids = std::vector<std::int32_t>;
using Vocab = std::vector<std::pair<std::string, double>>;

nlohmann::json unigram(const Vocab& vocab, const nlohmann::json& unknown = 0) {
  return {{"type", "Unigram"}, {"unk_id", unknown}, {"vocab", vocab}};
}

Ids encode(const nlohmann::json& model, const std::string& word) {
  WordCache cache;
  Ids ids;
  Unigram(JsonField(model, "model")).encode(word, cache, ids);
  return ids;
}

// The best way to end at each place, by trying all tokens there; the first of equals.
Ids plain_best(const Vocab& vocab, const std::string& word) {
  double lowest = 0;
  for (const auto& [token, score] : vocab) lowest = std::min(lowest, score);
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    std::size_t begin = 0;
    int id = -1;
  };
  std::vector<Best> best(word.size() + 1);
  best[0] = {0, 0, -1};
  for (std::size_t begin = 0; begin < word.size(); ++begin) {
    bool has_letter = false;
    for (std::size_t end = begin + 1; end <= word.size(); ++end) {
      for (std::size_t id = 0; id < vocab.size(); ++id) {
        if (word.compare(begin, end - begin, vocab[id].first) != 0) continue;
        has_letter = has_letter || end == begin + 1;
        const double sum = vocab[id].second + best[begin].score;
        if (sum > best[end].score) best[end] = {sum, begin, static_cast<int>(id)};
      }
    }
    const double sum = lowest - 10 + best[begin].score;
    if (!has_letter && sum > best[begin + 1].score) best[begin + 1] = {sum, begin, 0};
  }
  Ids ids;
  for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
    const bool joins = !ids.empty() && ids.front() == 0 && best[end].id == 0;
    if (!joins) ids.insert(ids.begin(), best[end].id);
  }
  return ids;
}

TEST(Unigram, TakesTheBestOfAllWaysWhereverAWordIsCut) {
  std::mt19937 random(5);
  for (int round = 0; round < 12; ++round) {
    std::map<std::string, double> tokens;
    while (tokens.size() < 14) {
      std::string token;
      for (std::size_t i = 0; i < 1 + random() % 4; ++i) token += "abcd"[random() % 4];
      tokens[token] = -0.25 * static_cast<double>(random() % 40);  // with ties
    }
    Vocab vocab{{"<unk>", 0}};
    vocab.insert(vocab.end(), tokens.begin(), tokens.end());
    for (int word = 0; word < 20; ++word) {
      std::string text;
      for (std::size_t i = 0; i < random() % 120; ++i) text += "abcde"[random() % 5];
      EXPECT_EQ(encode(unigram(vocab), text), plain_best(vocab, text)) << text;
    }
  }
}

TEST(Unigram, UnknownCharactersInARowAreOneTokenOrTheirBytes) {
  const Vocab vocab{{"<unk>", 0}, {"a", -1}, {"<0xC3>", -9}, {"<0xA9>", -9}};
  nlohmann::json model = unigram(vocab);
  EXPECT_EQ(encode(model, "axyzaé"), (Ids{1, 0, 1, 0}));
  model["byte_fallback"] = true;
  EXPECT_EQ(encode(model, "aéa"), (Ids{1, 2, 3, 1}));
  EXPECT_EQ(encode(model, "aéx"), (Ids{1, 0}));  // one of them has no bytes
  EXPECT_EQ(encode(model, "<unk>a"), (Ids{0, 1}));
}

TEST(Unigram, ALongWordTakesTimeAndMemoryThatGoWithIt) {
  const nlohmann::json model = unigram({{"<unk>", 0}, {"a", -1}, {"aa", -1.5}, {"b", -2}});
  const std::string word(400'001, 'a');
  const Ids ids = encode(model, word);
  EXPECT_EQ(ids.size(), 200'001U);
  EXPECT_EQ(encode(model, std::string(400'000, '?')), Ids{0});
}

TEST(Unigram, RefusesWhatCannotBeExact) {
  const auto complaint = [](const nlohmann::json& model) {
    return error_of([&] { Unigram(JsonField(model, "t")); });
  };
  EXPECT_EQ(complaint(unigram({{"a", -1}, {"a", -2}})),
            "t: vocab[1]: expected each token once, got [\"a\",-2.0]");
  EXPECT_NE(complaint(unigram({{"", -1}})).find("vocab[0]"), std::string::npos);
  EXPECT_NE(complaint(unigram({{"a", -1}}, 1)).find("unk_id"), std::string::npos);
  EXPECT_NE(complaint({{"vocab", nlohmann::json::array()}}).find("at least one token"),
            std::string::npos);
  nlohmann::json sampling = unigram({{"a", -1}});
  sampling["alpha"] = 0.1;
  EXPECT_NE(complaint(sampling).find("alpha: expected null"), std::string::npos);
  EXPECT_NE(error_of([] {
              encode(unigram({{"a", -1}}, nullptr), "b\x1b");
            }).find("no unknown token, got \"b\""),
            std::string::npos);
}

}  // namespace
}  // namespace memlayers::text

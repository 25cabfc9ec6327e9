// SPDX-License-Identifier: Apache-2.0
// What tokenizers 0.23.3 gives of the same files, with encode_special_tokens.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "text/testing.h"
#include "text/token_trie.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

using Ids = std::vector<std::int32_t>;

nlohmann::json added(int id, const std::string& content,
                     const std::vector<std::string>& flags = {}) {
  nlohmann::json token = {{"id", id}, {"content", content}, {"normalized", false}};
  for (const std::string& flag : flags) token[flag] = true;
  return token;
}

std::shared_ptr<const Tokenizer> with(const std::vector<nlohmann::json>& tokens,
                                      const nlohmann::json& normalizer = nullptr) {
  nlohmann::json json = ascii_tokenizer();
  json["added_tokens"] = tokens;
  json["normalizer"] = normalizer;
  return parse(json);
}

TEST(AddedTokens, ThoseOfTheTextAreFoundBeforeThoseOfTheNormalizedText) {
  const auto tokenizer = with({added(201, "<a>"), added(202, "x<", {"normalized"})});
  EXPECT_EQ(tokenizer->encode("x<a>"), (Ids{'x', 201}));
  EXPECT_EQ(tokenizer->encode("x<b"), (Ids{202, 'b'}));
  EXPECT_EQ(tokenizer->encode("<a>x<"), (Ids{201, 202}));
  const nlohmann::json underline = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "_"}};
  const auto normalizing = with({added(201, "A B", {"normalized"}), added(202, "C D")}, underline);
  EXPECT_EQ(normalizing->encode("A B"), Ids{201});
  EXPECT_EQ(normalizing->encode("A_B"), Ids{201});
  EXPECT_EQ(normalizing->encode("C D"), Ids{202});
  EXPECT_EQ(normalizing->encode("C_D"), (Ids{'C', '_', 'D'}));
}

TEST(AddedTokens, TheLongestAtTheFirstPlaceIsFound) {
  const auto tokenizer = with({added(201, "ab"), added(202, "abcd"), added(203, "bc")});
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{201, 'c'}));
  EXPECT_EQ(tokenizer->encode("abcd"), Ids{202});
  EXPECT_EQ(tokenizer->encode("xbcab"), (Ids{'x', 203, 201}));
}

TEST(AddedTokens, TakeTheSpacesAtTheirSides) {
  const auto tokenizer = with({added(201, "<m>", {"lstrip"}), added(202, "<r>", {"rstrip"}),
                               added(203, "<b>", {"lstrip", "rstrip"})});
  EXPECT_EQ(tokenizer->encode("a <m> b"), (Ids{'a', 201, ' ', 'b'}));
  EXPECT_EQ(tokenizer->encode("a  <r>  b"), (Ids{'a', ' ', ' ', 202, 'b'}));
  EXPECT_EQ(tokenizer->encode("<r> <m>x"), (Ids{202, 201, 'x'}));
  EXPECT_EQ(tokenizer->encode("<r> <b> <r>"), (Ids{202, 203, 202}));
  EXPECT_EQ(tokenizer->encode("  <b>  "), Ids{203});
}

TEST(AddedTokens, OfWholeWordsStandAlone) {
  const auto tokenizer = with({added(201, "cat", {"single_word"})});
  EXPECT_EQ(tokenizer->encode("a cat."), (Ids{'a', ' ', 201, '.'}));
  EXPECT_EQ(tokenizer->encode("cat's"), (Ids{201, '\'', 's'}));
  EXPECT_EQ(tokenizer->encode("_cat"), (Ids{'_', 'c', 'a', 't'}));
  EXPECT_EQ(tokenizer->encode("cat1"), (Ids{'c', 'a', 't', '1'}));
}

TEST(AddedTokens, ControlTokensAreTextAndHideWhatOverlapsThem) {
  const auto tokenizer = with({added(201, "<s>", {"special"}), added(202, "s>x")});
  EXPECT_EQ(tokenizer->encode("<s>x"), (Ids{'<', 's', '>', 'x'}));
  EXPECT_EQ(tokenizer->encode("s>x"), Ids{202});
  EXPECT_EQ(tokenizer->decode(Ids{201, 'a', 202}), "as>x");
}

TEST(AddedTokens, GivenTwiceOrUnderAnotherIdAreErrors) {
  const auto message = [](const nlohmann::json& a, const nlohmann::json& b) {
    return error_of([&] { with({a, b}); });
  };
  for (const std::string& error :
       {message(added(201, "<a>"), added(202, "<a>")),
        message(added(201, "<a>"), added(201, "<b>")), message(added(201, "<a>"), added(300, "a")),
        message(added(201, "<a>"), added(65, "<b>"))}) {
    EXPECT_NE(error.find("added_tokens[1]"), std::string::npos) << error;
  }
}

// Adds what tokenizer_config.json says.
TEST(AddedTokens, ConfigChangesThem) {
  nlohmann::json json = ascii_tokenizer();
  json["added_tokens"] = {added(201, "<a>")};
  TokenizerSettings settings;
  settings.path = "tokenizer_config.json";
  settings.added = {{.content = "<a>", .id = 201, .lstrip = true}};
  EXPECT_EQ(parse(json, settings)->encode("b <a>"), (Ids{'b', 201}));
  settings.added = {{.content = "<b>", .id = 202}};
  EXPECT_EQ(error_of([&] { parse(json, settings); }),
            "tokenizer_config.json: added_tokens_decoder[\"202\"]: expected a token of "
            "tokenizer.json under its id, got \"<b>\"");
  settings.added.clear();
  settings.special = {"<a>", "z"};  // one of them is no added token yet
  EXPECT_EQ(parse(json, settings)->decode(Ids{'y', 'z', 201}), "y<a>");
}

TEST(TokenTrie, FindsWhatAPlainSearchFinds) {
  std::mt19937 random(5);
  const auto word = [&](unsigned most) {
    std::string text;
    for (unsigned i = 0, length = 1 + random() % most; i < length; ++i) text += "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> strings;
    for (unsigned i = 0, count = 1 + random() % 6; i < count; ++i) strings.push_back(word(5));
    TokenTrie trie;
    trie.build({strings.begin(), strings.end()});
    const std::string text = word(40);
    std::string wanted, got;
    for (std::size_t at = 0; at < text.size();) {
      std::size_t best = strings.size();
      for (std::size_t i = 0; i < strings.size(); ++i) {
        const bool is_here = text.compare(at, strings[i].size(), strings[i]) == 0;
        if (is_here && (best == strings.size() || strings[i].size() > strings[best].size()))
          best = i;
      }
      if (best == strings.size()) {
        ++at;
        continue;
      }
      wanted += std::to_string(at) + ":" + std::to_string(best) + " ";
      at += strings[best].size();
    }
    for (const TokenTrie::Match& match : trie.find_all(text)) {
      got += std::to_string(match.begin) + ":" + std::to_string(match.index) + " ";
    }
    EXPECT_EQ(got, wanted) << text;
  }
}

}  // namespace
}  // namespace memlayers::text

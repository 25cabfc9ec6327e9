// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "text/bpe.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"

namespace memlayers::text {
namespace {

using Ids = std::vector<std::int32_t>;

// The definition: the pair of the lowest rank, the leftmost of equals, until there is none.
Ids plain_merges(const nlohmann::json& model, const std::string& word) {
  std::map<std::string, int> rank;
  for (const auto& merge : model.at("merges")) {
    rank.emplace(merge.get<std::string>(), static_cast<int>(rank.size()));
  }
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best = parts.size();
    int lowest = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = rank.find(parts[i] + " " + parts[i + 1]);
      if (found == rank.end() || (best < parts.size() && found->second >= lowest)) continue;
      best = i;
      lowest = found->second;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) ids.push_back(model.at("vocab").at(part).get<int>());
  return ids;
}

TEST(Bpe, MergesAsItsDefinitionSaysWhereverAWordIsCut) {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c", "d"}, merges;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random() % tokens.size()],
                        right = tokens[random() % tokens.size()];
      if (std::find(tokens.begin(), tokens.end(), left + right) != tokens.end()) continue;
      tokens.push_back(left + right);
      merges.push_back(left + " " + right);
    }
    const nlohmann::json model = ascii_tokenizer(merges).at("model");
    const Bpe bpe(JsonField(model, "model"));
    WordCache cache;
    for (int word = 0; word < 40; ++word) {
      std::string text;
      for (unsigned i = 0, length = random() % 120; i < length; ++i) text += "abcd"[random() % 4];
      Ids ids;
      bpe.encode(text, cache, ids);
      EXPECT_EQ(ids, plain_merges(model, text)) << text;
    }
  }
}

TEST(Bpe, UnknownCharactersAndBytesComeInTheOrderOfTheOriginal) {
  nlohmann::json model = ascii_tokenizer().at("model");
  model["vocab"]["<unk>"] = 300;
  model["vocab"]["<0xC3>"] = 301;
  model["vocab"]["<0xA9>"] = 302;  // é in bytes; ö has none
  model["unk_token"] = "<unk>";
  model["byte_fallback"] = true;
  const auto ids = [&](const std::string& text, bool fuses) {
    model["fuse_unk"] = fuses;
    WordCache cache;
    Ids tokens;
    Bpe(JsonField(model, "model")).encode(text, cache, tokens);
    return tokens;
  };
  // What tokenizers 0.23.3 gives.
  EXPECT_EQ(ids("aööéb", false), (Ids{'a', 300, 301, 302, 300, 'b'}));
  EXPECT_EQ(ids("aööéb", true), (Ids{'a', 301, 302, 300, 'b'}));
  EXPECT_EQ(ids("ööö", true), (Ids{300}));
  EXPECT_EQ(ids("ö", false), (Ids{300}));
}

TEST(Bpe, AWordOfAMillionCharactersIsOneOfMany) {
  const nlohmann::json model = ascii_tokenizer({"a b", "a a", "aa aa", "ab c"}).at("model");
  const Bpe bpe(JsonField(model, "model"));
  WordCache cache;
  const std::string part = "abcaaaad";  // no merge joins "d" and "a"
  Ids once, all;
  bpe.encode(part, cache, once);
  std::string text;
  for (int i = 0; i < 125'000; ++i) text += part;
  bpe.encode(text, cache, all);
  ASSERT_EQ(all.size(), once.size() * 125'000);
  EXPECT_TRUE(
      std::equal(once.begin(), once.end(), all.end() - static_cast<std::ptrdiff_t>(once.size())));
  // Nothing to cut at, and still one pass.
  Ids same;
  bpe.encode(std::string(1'000'000, 'a'), cache, same);
  EXPECT_EQ(same, Ids(250'000, model.at("vocab").at("aaaa").get<int>()));
}

TEST(Bpe, MemoryGoesWithTheTokensAndNotWithTheirIds) {
  nlohmann::json json = ascii_tokenizer();
  json["model"]["vocab"]["\u00e9"] = (1 << 24) - 1;
  const auto tokenizer = parse(json);
  EXPECT_EQ(tokenizer->vocab_size(), 1 << 24);
  const Ids ids = tokenizer->encode("a\u00e9b");
  EXPECT_EQ(ids, (Ids{'a', (1 << 24) - 1, 'b'}));
  EXPECT_EQ(tokenizer->decode(ids), "a\u00e9b");
  EXPECT_EQ(tokenizer->decode(Ids{'a', 5000, 'b'}), "ab");
}

}  // namespace
}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// Longer tokens: one may come where all of its bytes may.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "api/json_schema_testing.h"

namespace memlayers::api {
namespace {

const std::vector<std::string> kParts = {
    "{\"",  "\":",     "\": ",  "\",",      "\", \"",  "\"}",  "}}",   "]}",
    "]]",   "[[",      "[{",    "{\"a\":",  "{}",      "[]",   "ab",   "abc",
    " the", "the end", "    ",  "\n    ",   "\n  \"",  "12",   "123",  "1.",
    ".5",   "0,",      "1]",    "1}",       "true",    "rue,", "null", "ll}",
    "é",    "\xC3",    "漢字",  "\xE6\xBC", "\\n",     "\\u",  "a\"",  "a\\",
    "\":[", "\":{\"",  "\"b\"", "b\":",     "e\", \"", "-1",   "e5",   "[[[[[[[["};

const std::vector<const char*> kSchemas = {
    "true",
    R"({"type":"object"})",
    R"({"type":"object","properties":{"a":{"type":"string","maxLength":4},"ab":{"type":"integer",
        "minimum":0,"maximum":130},"b":{"type":"array","items":{"type":"boolean"},"maxItems":2}},
        "required":["a"],"additionalProperties":false})",
    R"({"type":"array","items":{"anyOf":[{"type":"array","items":{"$ref":"#"}},
        {"type":"array","items":{"type":"number"},"maxItems":3},{"$ref":"#"}]}})",
    R"({"type":"array","minItems":2,"maxItems":5,"items":{"type":"string","minLength":2,"maxLength":9}})",
    R"({"type":"string","pattern":"^(ab|the)+(\\d{2}|é)?$"})",
    R"({"type":"object","additionalProperties":{"enum":["a","ab",1,12,null]}})"};

class Filters {
 public:
  Filters(JsonGrammars& parts, JsonGrammars& bytes, const char* schema)
      : bytes_(bytes.schema(schema)), filter_(parts.schema(schema)->begin()) {}

  void check(const PartsTokenizer& tokenizer) {
    constexpr std::int32_t kEos = text::LetterTokenizer::kEos;
    left_ = left_by(*filter_, tokenizer.vocab_size());
    ASSERT_FALSE(left_.empty()) << text_;
    for (std::int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
      const std::string part = tokenizer.token(token);
      bool wanted = false;
      if (token == kEos) {
        wanted = taken(*bytes_, text_).is_whole;
      } else if (token != text::LetterTokenizer::kBos) {
        wanted = taken(*bytes_, text_ + part).bytes == text_.size() + part.size();
      }
      ASSERT_EQ(std::ranges::binary_search(left_, token), wanted)
          << "behind '" << text_ << "', token " << token << " '" << part << "'";
    }
  }
  // False behind the end.
  bool go(std::mt19937& random, const PartsTokenizer& tokenizer) {
    const std::int32_t token = left_[random() % left_.size()];
    if (token == text::LetterTokenizer::kEos) return false;
    filter_->take(token);
    text_ += tokenizer.token(token);
    return true;
  }

 private:
  std::shared_ptr<const Grammar> bytes_;
  std::unique_ptr<TokenFilter> filter_;
  std::string text_;
  std::vector<std::int32_t> left_;
};

TEST(JsonSchemaTokens, ComeWhereAllOfTheirBytesMay) {
  const PartsTokenizer tokenizer(kParts);
  const text::LetterTokenizer letters;
  JsonGrammars parts(tokenizer, {text::LetterTokenizer::kEos});
  JsonGrammars bytes(letters, {text::LetterTokenizer::kEos});
  std::mt19937 random(7);
  for (const char* const schema : kSchemas) {
    for (int walk = 0; walk < 3; ++walk) {
      Filters filters(parts, bytes, schema);
      for (int step = 0; step < 12; ++step) {
        filters.check(tokenizer);
        if (HasFatalFailure()) return;
        if (!filters.go(random, tokenizer)) break;
      }
    }
  }
}

TEST(JsonSchemaTokens, AreTheSameWhateverWasAskedBefore) {
  const PartsTokenizer tokenizer(kParts);
  for (const char* const schema : kSchemas) {
    JsonGrammars fresh(tokenizer, {text::LetterTokenizer::kEos});
    JsonGrammars used(tokenizer, {text::LetterTokenizer::kEos});
    std::mt19937 random(11);
    const auto walk = [&](TokenFilter& filter, std::mt19937 draw) {
      std::vector<std::vector<std::int32_t>> all;
      for (int step = 0; step < 40; ++step) {
        all.push_back(left_by(filter, tokenizer.vocab_size()));
        const std::int32_t token = all.back()[draw() % all.back().size()];
        if (token == text::LetterTokenizer::kEos) break;
        filter.take(token);
      }
      return all;
    };
    for (int i = 0; i < 10; ++i) walk(*used.schema(schema)->begin(), std::mt19937(random()));
    EXPECT_EQ(walk(*fresh.schema(schema)->begin(), std::mt19937(3)),
              walk(*used.schema(schema)->begin(), std::mt19937(3)));
  }
}

TEST(JsonSchemaTokens, MayBeAskedFromSeveralThreads) {
  const PartsTokenizer tokenizer(kParts);
  JsonGrammars grammars(tokenizer, {text::LetterTokenizer::kEos});
  const auto grammar = grammars.schema(kSchemas[2]);
  std::vector<std::vector<std::int32_t>> found(4);
  std::vector<std::thread> threads;
  for (auto& mine : found) {
    threads.emplace_back([&] {
      const auto filter = grammar->begin();
      std::mt19937 random(5);
      for (int step = 0; step < 30; ++step) {
        const auto left = left_by(*filter, tokenizer.vocab_size());
        mine.push_back(left[random() % left.size()]);
        if (mine.back() == text::LetterTokenizer::kEos) break;
        filter->take(mine.back());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& mine : found) EXPECT_EQ(mine, found[0]);
}

// Schemas are strangers' texts.
TEST(JsonSchemaTokens, HostileSchemasTakeNoTime) {
  const PartsTokenizer tokenizer(kParts);
  JsonGrammars grammars(tokenizer, {text::LetterTokenizer::kEos});
  std::string chain = R"({"$ref":"#/$defs/d0","$defs":{)";
  for (int i = 0; i < 40; ++i) {
    const std::string next = R"({"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"}";
    chain += "\"d" + std::to_string(i) + R"(":{"anyOf":[)" + next + "," + next + "]},";
  }
  chain += R"("d40":{"type":"null"}}})";
  std::string wide = R"({"anyOf":[)";
  for (int i = 0; i < 1000; ++i) {
    wide += std::string(i > 0 ? "," : "") +
            R"({"type":"array","items":{"type":"array"},"maxItems":)" + std::to_string(i + 1) + "}";
  }
  wide += "]}";
  std::string names, defs = R"({"$ref":"#/$defs/d0","$defs":{)", values;
  for (int i = 0; i < 9000; ++i) {
    names += (i > 0 ? ",\"n" : "\"n") + std::to_string(i) + "\":{}";
    values += (i > 0 ? "," : "") + std::to_string(i);
  }
  for (int i = 0; i < 3000; ++i) {
    defs += "\"d" + std::to_string(i) + R"(":{"$ref":"#/$defs/d)" + std::to_string(i + 1) + "\"},";
  }
  defs += R"("d3000":{}}})";
  const std::vector<std::string> schemas = {
      R"({"type":"object","properties":{)" + names + "}}",
      R"({"type":"object","additionalProperties":false,"properties":{)" + names + "}}",
      R"({"oneOf":[{"enum":[)" + values + R"(]},{"enum":["a",)" + values + "]}]}",
      R"({"enum":[)" + values + "]}",
      defs,
      std::string(300'000, ' ') + "{}",
      std::string(100'000, '['),
      chain,
      wide,
      R"j({"type":"string","pattern":"((((a{1000}){1000}){1000}){1000})"})j",
      R"({"type":"string","pattern":"(((()*){1000}){1000}){1000}"})",
      R"({"type":"string","pattern":")" + std::string(1000, '(') + R"("})",
      R"({"type":"string","pattern":"(a|b)*a(a|b){200}c"})",
      R"({"type":"string","minLength":999999999})",
      R"({"$defs":{"a":{"anyOf":[{"type":"array","items":{"$ref":"#/$defs/a"}},
          {"type":"array","items":{"$ref":"#/$defs/a"},"maxItems":5}]}},"$ref":"#/$defs/a"})"};
  for (const std::string& schema : schemas) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      const auto filter = grammars.schema(schema)->begin();
      std::mt19937 random(1);
      for (int step = 0; step < 30; ++step) {
        const auto left = left_by(*filter, tokenizer.vocab_size());
        ASSERT_FALSE(left.empty());
        const std::int32_t token = left[random() % left.size()];
        if (token == text::LetterTokenizer::kEos) break;
        filter->take(token);
      }
    } catch (const Refusal& refusal) {
      EXPECT_EQ(refusal.status(), 400);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    RecordProperty(schema.substr(0, 40), std::to_string(took.count()));
    if (took.count() > 1) std::cerr << schema.substr(0, 80) << ": " << took.count() << " s\n";
  }
}

}  // namespace
}  // namespace memlayers::api

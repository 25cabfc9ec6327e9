// SPDX-License-Identifier: Apache-2.0
// A grammar asked byte by byte, and a vocabulary of longer tokens to ask it with.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/engine.h"
#include "api/json_schema.h"
#include "support/testing.h"
#include "text/letter_tokenizer.h"

namespace memlayers::api {

// LetterTokenizer's bytes, then BOS and EOS, then these.
class PartsTokenizer : public text::LetterTokenizer {
 public:
  explicit PartsTokenizer(std::vector<std::string> parts) : parts_(std::move(parts)) {}
  std::string token(std::int32_t id) const override {
    return id <= kEos ? LetterTokenizer::token(id)
                      : parts_[static_cast<std::size_t>(id - kEos - 1)];
  }
  std::int64_t vocab_size() const override {
    return kEos + 1 + static_cast<std::int64_t>(parts_.size());
  }
  std::unique_ptr<TextStream> decode_stream() const override {
    return std::make_unique<PartsStream>(*this);
  }

 private:
  class PartsStream : public TextStream {
   public:
    explicit PartsStream(const PartsTokenizer& tokenizer) : tokenizer_(tokenizer) {}
    std::string push(std::int32_t token) override {
      return token == kBos || token == kEos ? std::string() : tokenizer_.token(token);
    }
    std::string finish() override { return {}; }

   private:
    const PartsTokenizer& tokenizer_;
  };
  std::vector<std::string> parts_;
};

// The tokens that a filter leaves.
inline std::vector<std::int32_t> left_by(const TokenFilter& filter, std::int64_t vocab_size) {
  std::vector<float> logits(static_cast<std::size_t>(vocab_size));
  filter.apply(logits);
  std::vector<std::int32_t> left;
  for (std::size_t token = 0; token < logits.size(); ++token) {
    if (!std::isinf(logits[token])) left.push_back(static_cast<std::int32_t>(token));
  }
  return left;
}

// How much of a text a grammar over bytes takes; and whether it may end behind it.
struct Taken {
  std::size_t bytes = 0;
  bool is_whole = false;
};

inline Taken taken(const Grammar& grammar, std::string_view text) {
  constexpr auto kEos = static_cast<std::size_t>(text::LetterTokenizer::kEos);
  const auto filter = grammar.begin();
  Taken result;
  std::vector<float> logits;
  for (;; ++result.bytes) {
    logits.assign(kEos + 1, 0);
    filter->apply(logits);
    if (result.bytes == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[result.bytes]);
    if (std::isinf(logits[byte])) return result;
    filter->take(byte);
  }
  result.is_whole = !std::isinf(logits[kEos]);
  return result;
}

class JsonSchema : public ::testing::Test {
 protected:
  bool allows(std::string_view schema, std::string_view text) {
    const Taken found = taken(*grammars_.schema(schema), text);
    return found.bytes == text.size() && found.is_whole;
  }
  std::string refusal(std::string_view schema) {
    try {
      grammars_.schema(schema);
    } catch (const Refusal& refusal) {
      EXPECT_EQ(refusal.status(), 400);
      EXPECT_EQ(refusal.code(), "invalid_json_schema");
      EXPECT_EQ(refusal.param(), "response_format");
      return refusal.what();
    }
    return "";
  }

  const text::LetterTokenizer tokenizer_;
  JsonGrammars grammars_{tokenizer_, {text::LetterTokenizer::kEos}};
};

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
// A tokenizer whose tokens can be foretold: a byte is its own id; 256 is BOS, 257 EOS.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::text {

class LetterTokenizer : public Tokenizer {
 public:
  static constexpr std::int32_t kBos = 256, kEos = 257;
  explicit LetterTokenizer(bool has_special = true) : has_special_(has_special) {
    if (has_special) prefix_ = {kBos};
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens;
    for (const char letter : text) tokens.push_back(static_cast<unsigned char>(letter));
    return tokens;
  }
  std::vector<std::int32_t> encode_special(std::string_view text) const override {
    return encode(text);
  }
  std::string token(std::int32_t id) const override {
    return std::string(1, static_cast<char>(id));
  }
  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    return encode(" " + std::string(text));
  }
  std::unique_ptr<TextStream> decode_stream() const override { return std::make_unique<Stream>(); }
  const std::vector<std::int32_t>& prefix() const override { return prefix_; }
  const std::vector<std::int32_t>& suffix() const override { return suffix_; }
  std::int64_t vocab_size() const override { return 258; }
  std::optional<std::int32_t> bos() const override { return special(kBos); }
  std::optional<std::int32_t> eos() const override { return special(kEos); }
  std::optional<std::int32_t> pad() const override { return std::nullopt; }
  const TokenizerFiles& files() const override { return files_; }

 private:
  class Stream : public TextStream {
   public:
    std::string push(std::int32_t token) override {
      return token < kBos ? std::string(1, static_cast<char>(token)) : std::string();
    }
    std::string finish() override { return {}; }
  };

  std::optional<std::int32_t> special(std::int32_t id) const {
    return has_special_ ? std::optional(id) : std::nullopt;
  }
  bool has_special_;
  std::vector<std::int32_t> prefix_, suffix_;
  TokenizerFiles files_ = {{"tokenizer.model", "letters"}};
};

}  // namespace memlayers::text

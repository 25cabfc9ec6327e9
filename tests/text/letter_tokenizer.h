// SPDX-License-Identifier: Apache-2.0
// A tokenizer whose tokens can be foretold: a byte is its own id; 256 is BOS, 257 EOS.
#pragma once

#include <string>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::text {

class LetterTokenizer : public Tokenizer {
 public:
  static constexpr std::int32_t kBos = 256, kEos = 257;
  explicit LetterTokenizer(bool has_special = true) : has_special_(has_special) {}

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens;
    for (const char letter : text) tokens.push_back(static_cast<unsigned char>(letter));
    return tokens;
  }
  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    return encode(" " + std::string(text));
  }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens) {
      if (token < kBos) text += static_cast<char>(token);
    }
    return text;
  }
  std::int64_t vocab_size() const override { return 258; }
  std::optional<std::int32_t> bos() const override { return special(kBos); }
  std::optional<std::int32_t> eos() const override { return special(kEos); }
  std::optional<std::int32_t> pad() const override { return std::nullopt; }
  std::string file_name() const override { return "tokenizer.model"; }
  const std::string& file_bytes() const override { return bytes_; }

 private:
  std::optional<std::int32_t> special(std::int32_t id) const {
    return has_special_ ? std::optional(id) : std::nullopt;
  }
  bool has_special_;
  std::string bytes_ = "letters";
};

}  // namespace memlayers::text

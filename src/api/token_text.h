// SPDX-License-Identifier: Apache-2.0
// Single tokens as text and as bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::api {

struct TokenText {
  std::string bytes;        // what it stands for behind other text; of a special token its name
  bool is_special = false;  // it is no part of a text
};

// What single tokens stand for: of every id looked up once, some tenths of a second for a large
// vocabulary. For use from several threads, as long as the tokenizer lives.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer& tokenizer);
  TokenText operator()(std::int32_t token) const;
  // The same as a name for people and keys: where the bytes are no text (part of a character)
  // "bytes:\xf0\x9f", as OpenAI writes them, so that no two such tokens share a name.
  std::string name(std::int32_t token) const;
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::optional<std::string>> bytes_;  // none: special
};

std::string name_of(std::string_view bytes);

// Tokens as text with the names of special tokens, as servers' /detokenize gives it.
std::string text_with_special(const TokenTexts& texts, std::span<const std::int32_t> tokens);

// Where each token of an answer stands in its text, in characters.
class TextOffsets {
 public:
  explicit TextOffsets(const Tokenizer& tokenizer) : stream_(tokenizer.decode_stream()) {}
  // The characters before it; those of the unfinished one count with its last token.
  std::int64_t next(std::int32_t token);

 private:
  std::unique_ptr<TextStream> stream_;
  std::int64_t characters_ = 0;
};

}  // namespace memlayers::api

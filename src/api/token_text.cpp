// SPDX-License-Identifier: Apache-2.0
#include "api/token_text.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "io/utf8.h"
#include "text/token_bytes.h"

namespace memlayers::api {
namespace {

std::int64_t characters_of(std::string_view text) {
  return std::ranges::count_if(text, [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;  // not a continuation
  });
}

}  // namespace

TokenTexts::TokenTexts(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), bytes_(text::token_bytes(tokenizer)) {}

TokenText TokenTexts::operator()(std::int32_t token) const {
  const auto id = static_cast<std::size_t>(token);
  // A model may have more tokens than its tokenizer: those never come, but have a probability.
  if (id >= bytes_.size()) {
    return {.bytes = "<unused " + std::to_string(token) + ">", .is_special = true};
  }
  if (const auto& bytes = bytes_[id]) return {.bytes = *bytes};
  return {.bytes = tokenizer_.token(token), .is_special = true};
}

std::string TokenTexts::name(std::int32_t token) const { return name_of((*this)(token).bytes); }

std::string name_of(std::string_view bytes) {
  if (io::valid_utf8_bytes(bytes) == bytes.size()) return std::string(bytes);
  std::string name = "bytes:";
  for (const char c : bytes) {
    std::array<char, 8> text{};
    std::snprintf(text.data(), text.size(), "\\x%02x",
                  static_cast<unsigned>(static_cast<unsigned char>(c)));
    name += text.data();
  }
  return name;
}

std::string text_with_special(const TokenTexts& texts, std::span<const std::int32_t> tokens) {
  const auto stream = texts.tokenizer().decode_stream();
  std::string text;
  for (const std::int32_t token : tokens) {
    text += stream->push(token);
    if (const TokenText one = texts(token); one.is_special) text += one.bytes;
  }
  return text + stream->finish();
}

std::int64_t TextOffsets::next(std::int32_t token) {
  const std::int64_t before = characters_;
  characters_ += characters_of(stream_->push(token));
  return before;
}

}  // namespace memlayers::api

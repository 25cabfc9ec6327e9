// SPDX-License-Identifier: Apache-2.0
#include "text/token_bytes.h"

#include <string_view>

#include "text/byte_characters.h"
#include "text/spelled_byte.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// The bytes of a token whose characters stand for them.
std::optional<std::string> spelled(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const Utf8Character character = decode_utf8(token);
    const auto byte = byte_of_character(character.code);
    if (!byte) return std::nullopt;
    bytes += static_cast<char>(*byte);
    token.remove_prefix(character.bytes);
  }
  return bytes;
}

class Reader {
 public:
  explicit Reader(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), anchor_(tokenizer.encode("a")) {
    const std::string twice = tokenizer.decode(joined({}));
    before_ = tokenizer.decode(anchor_);
    behind_ = twice.substr(before_.size());
  }

  std::optional<std::string> bytes(std::int32_t id) const {
    std::string text = tokenizer_.decode(joined({id}));
    if (!text.starts_with(before_) || !text.ends_with(behind_) ||
        text.size() <= before_.size() + behind_.size()) {
      return std::nullopt;
    }
    text = text.substr(before_.size(), text.size() - before_.size() - behind_.size());
    if (text.find(kReplacement) == std::string::npos) return text;
    const std::string token = tokenizer_.token(id);
    // A part of a character; or that very sign, which is spelled as other characters are.
    if (const auto byte = read_spelled_byte(token)) return std::string(1, static_cast<char>(*byte));
    if (const auto bytes = spelled(token)) return bytes;
    return token.find(kReplacement) == std::string::npos ? std::nullopt : std::optional(text);
  }

 private:
  // A token shows what it adds between others: decoders treat the first and the last one
  // differently.
  std::vector<std::int32_t> joined(std::vector<std::int32_t> middle) const {
    std::vector<std::int32_t> tokens = anchor_;
    tokens.insert(tokens.end(), middle.begin(), middle.end());
    tokens.insert(tokens.end(), anchor_.begin(), anchor_.end());
    return tokens;
  }

  const Tokenizer& tokenizer_;
  const std::vector<std::int32_t> anchor_;
  std::string before_, behind_;
};

}  // namespace

std::vector<std::optional<std::string>> token_bytes(const Tokenizer& tokenizer) {
  const Reader reader(tokenizer);
  std::vector<std::optional<std::string>> all(static_cast<std::size_t>(tokenizer.vocab_size()));
  for (std::size_t id = 0; id < all.size(); ++id) {
    all[id] = reader.bytes(static_cast<std::int32_t>(id));
  }
  return all;
}

}  // namespace memlayers::text

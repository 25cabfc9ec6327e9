// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "memlayers/tokenizer.h"
#include "text/utf8.h"

namespace memlayers {

// The text of tokens_ is compared with what was given of it. tokens_ is cut to its last token
// whenever that cannot change what follows, so that a push costs the same however long the stream.
StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                             std::vector<std::int32_t> prompt)
    : tokenizer_(std::move(tokenizer)), tokens_(std::move(prompt)) {
  given_ = tokenizer_->decode(tokens_);
  shorten();
}

std::string StreamDecoder::push(std::int32_t token) {
  tokens_.push_back(token);
  const std::string text = tokenizer_->decode(tokens_);
  // Up to three bytes at the end may be the beginning of a character: up to three U+FFFD.
  std::string_view whole = text;
  for (int i = 0; i < 3 && whole.ends_with(text::kReplacement); ++i) {
    whole.remove_suffix(text::kReplacement.size());
  }
  std::string fresh = take(whole);
  if (whole.size() == text.size()) shorten();
  return fresh;
}

std::string StreamDecoder::finish() { return take(tokenizer_->decode(tokens_)); }

std::string StreamDecoder::take(std::string_view text) {
  // Held-back bytes make `text` shorter than what was given only behind a prompt that ends in
  // U+FFFD.
  if (text.size() <= given_.size() && std::string_view(given_).starts_with(text)) return {};
  std::size_t same = static_cast<std::size_t>(
      std::mismatch(text.begin(), text.end(), given_.begin(), given_.end()).first - text.begin());
  while (same > 0 && same < text.size() &&
         (static_cast<unsigned char>(text[same]) & 0xC0) == 0x80) {
    --same;
  }
  given_ = text;
  return std::string(text.substr(same));
}

void StreamDecoder::shorten() {
  if (tokens_.empty()) return;
  // A token that has text of its own: what comes behind it is not at the start of a text.
  const std::int32_t last = tokens_.back();
  std::string alone = tokenizer_->decode(std::span(&last, 1));
  if (alone.empty() || alone.ends_with(text::kReplacement)) return;
  tokens_ = {last};
  given_ = std::move(alone);
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "memlayers/tokenizer.h"
#include "text/utf8.h"

namespace memlayers {

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  const auto stream = decode_stream();
  std::string text;
  for (const std::int32_t token : tokens) text += stream->push(token);
  return text += stream->finish();
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                             const std::vector<std::int32_t>& prompt)
    : tokenizer_(std::move(tokenizer)), stream_(tokenizer_->decode_stream()) {
  std::size_t given = 0;
  for (const std::int32_t token : prompt) given += stream_->push(token).size();
  if (!prompt.empty()) prompt_rest_ = tokenizer_->decode(prompt).substr(given);
}

std::string StreamDecoder::push(std::int32_t token) { return behind_prompt(stream_->push(token)); }

std::string StreamDecoder::finish() { return behind_prompt(stream_->finish()); }

std::string StreamDecoder::behind_prompt(std::string text) {
  std::size_t same = 0;
  while (same < text.size() && same < prompt_rest_.size()) {
    const std::string_view rest = std::string_view(text).substr(same);
    const std::string_view character = rest.substr(0, text::decode_utf8(rest).bytes);
    if (!std::string_view(prompt_rest_).substr(same).starts_with(character)) {
      prompt_rest_.clear();
      break;
    }
    same += character.size();
  }
  prompt_rest_.erase(0, same);
  return text.erase(0, same);
}

}  // namespace memlayers

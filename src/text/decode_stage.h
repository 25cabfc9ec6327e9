// SPDX-License-Identifier: Apache-2.0
// The steps of a decoder at work: tokens' texts go in one after the other, and text comes out as
// soon as nothing that follows can change it.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "text/pattern.h"

namespace memlayers::text {

// What a stage gives goes to the next one.
using GiveText = std::function<void(std::string)>;

class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  // The text of a token; of a stage behind one that joins all tokens, some of their text.
  virtual void push(std::string text, const GiveText& give) = 0;
  virtual void finish(const GiveText&) {}
};

// Each token's text by itself; `index` counts them.
std::unique_ptr<DecodeStage> each_token(
    std::function<std::string(std::string text, std::size_t index)> change);
// Runs of tokens that spell bytes ("<0x41>") become their characters, or a U+FFFD for each byte of
// a run that is not UTF-8: a run is held back until it ends.
std::unique_ptr<DecodeStage> join_spelled_bytes();
// Tokens of characters that stand for bytes become these; tokens of others stand for themselves.
std::unique_ptr<DecodeStage> join_byte_characters();
// Of the text of all tokens together: what is looked for is replaced, or left out at the start.
std::unique_ptr<DecodeStage> replace_in_text(std::string from, std::string to);
std::unique_ptr<DecodeStage> strip_start(std::string character, std::size_t most);
std::unique_ptr<DecodeStage> strip_end(std::string character, std::size_t most);
// Of each token by itself: `suffix` becomes a space, and nothing in the last one.
std::unique_ptr<DecodeStage> end_words(std::string suffix);
// All the text at once, at the end.
std::unique_ptr<DecodeStage> hold_all();

}  // namespace memlayers::text

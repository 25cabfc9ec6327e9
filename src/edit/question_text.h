// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::edit {

// What the messages of a conversation say, read back from its tokens: without special tokens and
// without what the tokenizer's chat template writes before, between and behind messages ("user",
// "assistant", a system message of its own). Of other prompts all of their text.
class QuestionText {
 public:
  explicit QuestionText(const Tokenizer& tokenizer);
  std::string of(const Tokenizer& tokenizer, std::span<const std::int32_t> prompt) const;

 private:
  std::vector<std::string> written_;  // by the template, the longest first
};

}  // namespace memlayers::edit

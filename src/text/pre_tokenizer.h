// SPDX-License-Identifier: Apache-2.0
// "pre_tokenizer" of a tokenizer.json: cuts a text into the words that the model sees.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "text/json_field.h"

namespace memlayers::text {

// A stretch of text on its way to the model; never empty.
struct TextPiece {
  std::string_view text;
  bool at_start;      // it begins where the whole text does
  bool takes_prefix;  // whether something may be put before it
};
using TakePiece = std::function<void(const TextPiece&)>;

// Immutable after construction.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Whether it puts a space before a text.
  virtual bool adds_prefix() const { return false; }
  // Gives the parts of `piece` to `next`, in their order, as long as the call lasts.
  virtual void split(const TextPiece& piece, const TakePiece& next) const = 0;
};

// Immutable after construction.
class PreTokenizer {
 public:
  PreTokenizer() = default;  // a text is one word
  explicit PreTokenizer(const JsonField& field);
  bool adds_prefix() const;
  // Gives each word, as it is found, to `word`: memory does not go with their number.
  void split(const TextPiece& piece, const std::function<void(std::string_view)>& word) const;

 private:
  void read(const JsonField& field);
  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace memlayers::text

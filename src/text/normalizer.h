// SPDX-License-Identifier: Apache-2.0
// "normalizer" of a tokenizer.json: what is done to a text before it is cut into words.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_field.h"

namespace memlayers::text {

// Immutable after construction.
class NormalizerStep {
 public:
  struct Context {
    bool takes_prefix;      // whether something may be put before the text
    std::size_t max_bytes;  // of the result
  };
  virtual ~NormalizerStep() = default;
  // Whether it puts a space before a text.
  virtual bool adds_prefix() const { return false; }
  virtual void apply(std::string& text, const Context& context) const = 0;
  // Throws Error for a result above `context.max_bytes`.
  static void check_size(std::size_t bytes, const Context& context);
};

// Immutable after construction.
class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  explicit Normalizer(const JsonField& field);
  bool adds_prefix() const;

  bool is_empty() const { return steps_.empty(); }
  // Time and memory go with the text and the result. Throws Error for a result of more than
  // `max_bytes`.
  std::string operator()(std::string_view text, bool takes_prefix, std::size_t max_bytes) const;

 private:
  void read(const JsonField& field);
  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

}  // namespace memlayers::text

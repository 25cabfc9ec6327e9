// SPDX-License-Identifier: Apache-2.0
// {"String": ...} or {"Regex": ...}, or a kind of characters: what a step of a tokenizer.json looks
// for.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "text/json_field.h"
#include "text/regex.h"

namespace memlayers::text {

// Immutable.
class Pattern {
 public:
  explicit Pattern(const JsonField& field);
  explicit Pattern(std::string text) : text_(std::move(text)) {}  // not empty
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}
  explicit Pattern(bool (*is_one)(char32_t)) : is_one_(is_one) {}  // each such character
  // The string, where it is one.
  std::optional<std::string_view> text() const {
    return text_.empty() ? std::nullopt : std::optional<std::string_view>(text_);
  }
  // Calls each(begin, end) for the matches in `text`, valid UTF-8, from left to right. None is
  // empty.
  void for_each_match(std::string_view text,
                      const std::function<void(std::size_t, std::size_t)>& each) const;
  // `text` with `content` for each of them.
  std::string replaced(std::string_view text, std::string_view content) const;

 private:
  std::string text_;
  std::optional<Regex> regex_;
  bool (*is_one_)(char32_t) = nullptr;
};

}  // namespace memlayers::text

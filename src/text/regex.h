// SPDX-License-Identifier: Apache-2.0
// The regular expressions of tokenizer.json. They are written for Oniguruma; PCRE2 runs them. The
// few constructs that the two read differently are translated or refused.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "text/json_field.h"

struct pcre2_real_code_8;

namespace memlayers::text {

// Immutable: may be used from several threads.
class Regex {
 public:
  explicit Regex(const JsonField& pattern);  // throws Error for a pattern it cannot match exactly
  // Of the library's own, in PCRE2's syntax.
  static Regex trusted(const std::string& pattern);

  bool matches(std::string_view text) const;  // somewhere in valid UTF-8
  // Calls each(begin, end) for the matches in `text`, valid UTF-8, from left to right. None is
  // empty.
  void for_each_match(std::string_view text,
                      const std::function<void(std::size_t, std::size_t)>& each) const;

 private:
  Regex() = default;
  std::string compile(const std::string& pattern);  // what is wrong, or ""
  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace memlayers::text

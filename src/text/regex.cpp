// SPDX-License-Identifier: Apache-2.0
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cctype>
#include <cstdint>
#include <vector>

#include "io/shown.h"
#include "memlayers/error.h"
#include "text/unicode_class.h"

namespace memlayers::text {
namespace {

bool is_hex(char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Reads a pattern once and writes it again in PCRE2's words.
class Translation {
 public:
  explicit Translation(const JsonField& field) : field_(field), pattern_(field.string()) {
    while (at_ < pattern_.size()) step();
    if (in_class_) refuse("a character class that does not end");
  }
  const std::string& result() const { return out_; }

 private:
  void step() {
    const char c = pattern_[at_];
    if (ignores_case()) check_folding(c);
    if (c == '\\') return escape();
    if (in_class_) {
      const bool is_intersection = c == '&' && pattern_.substr(at_, 2) == "&&";
      if (c == '[' || is_intersection) refuse("a character class inside another");
      if (c == ']') in_class_ = false;
    } else if (c == '[') {
      in_class_ = true;
      if (pattern_.substr(at_, 2) == "[^") copy(1);
      if (pattern_.substr(at_ + 1, 1) == "]") refuse("an empty character class");
    } else if (c == '(') {
      return group();
    } else if (c == ')') {
      if (!ignores_case_.empty()) ignores_case_.pop_back();
    } else if (c == '{') {
      return repetition();
    } else if (c == '^' || c == '$') {
      refuse(std::string("an anchor '") + c + "'");  // of lines in one, of the text in the other
    }
    copy(1);
  }

  bool ignores_case() const { return !ignores_case_.empty() && ignores_case_.back(); }

  // Without regard to case Oniguruma takes one character for several: "ss" for U+00DF, "fi" for a
  // ligature, and the other way about; PCRE2 never does. Refused is all that may have such a twin,
  // whatever stands between its letters.
  void check_folding(char c) {
    constexpr std::array<std::string_view, 5> kPairs = {"ss", "ff", "fi", "fl", "st"};
    if (static_cast<unsigned char>(c) >= 0x80) refuse("a character above U+007F in \"(?i:\"");
    if (in_class_ || c == '[') {
      if (pattern_.substr(at_, 2) == "[^") refuse("a negated character class in \"(?i:\"");
      letter_ = '\0';
      if (c != '\\') return;
    }
    if (c == '\\') {
      const char name = pattern_.size() > at_ + 1 ? pattern_[at_ + 1] : '\0';
      if (std::isalpha(static_cast<unsigned char>(name)) != 0 &&
          std::string_view("sdrntf").find(name) == std::string_view::npos) {
        refuse(std::string("an escape '\\") + name + "' in \"(?i:\"");
      }
      letter_ = '\0';
      return;
    }
    if (c == '|') letter_ = '\0';
    if (std::isalpha(static_cast<unsigned char>(c)) == 0) return;
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const std::string pair = {letter_, lower};
    if (std::find(kPairs.begin(), kPairs.end(), pair) != kPairs.end()) {
      refuse("\"" + pair + "\" in \"(?i:\"");
    }
    letter_ = lower;
  }

  void escape() {
    const std::string_view rest = pattern_.substr(at_);
    const char c = rest.size() > 1 ? rest[1] : '\0';
    // \s has U+180E in PCRE2 alone; the property is what Oniguruma means.
    if (c == 's') return replace(2, "\\p{White_Space}");
    if (c == 'S') return replace(2, "\\P{White_Space}");
    if (c == 'd') return put_class("Nd", false, 2);
    if (c == 'D') return put_class("Nd", true, 2);
    if (c == 'r' || c == 'n' || c == 't' || c == 'f') return copy(2);
    if (c == 'p' || c == 'P') return property(rest);
    if (c == 'u' && rest.size() >= 6 && is_hex(rest[2]) && is_hex(rest[3]) && is_hex(rest[4]) &&
        is_hex(rest[5])) {
      return replace(6, "\\x{" + std::string(rest.substr(2, 4)) + "}");
    }
    if (c == 'x' && rest.substr(2, 1) == "{") {
      std::size_t end = 3;
      while (end < rest.size() && is_hex(rest[end])) ++end;
      if (end > 3 && rest.substr(end, 1) == "}") return copy(end + 1);
    }
    if (std::ispunct(static_cast<unsigned char>(c)) != 0) return copy(2);
    refuse("an escape '" + std::string(rest.substr(0, 2)) + "'");
  }

  // General categories only: script names have another meaning in PCRE2.
  void property(std::string_view rest) {
    constexpr std::string_view kCategories =
        " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp ";
    const std::size_t end = rest.find('}');
    if (rest.substr(2, 1) != "{" || end == std::string_view::npos) refuse("an unfinished property");
    const std::string name(rest.substr(3, end - 3));
    if (name.empty() || kCategories.find(" " + name + " ") == std::string_view::npos) {
      refuse("a property '" + std::string(rest.substr(0, end + 1)) + "'");
    }
    put_class(name, rest[1] == 'P', end + 1);
  }

  void put_class(const std::string& category, bool is_negated, std::size_t count) {
    if (in_class_ && is_negated) {
      refuse("a negated property inside a character class");
    }
    const std::string members = unicode_class(category);
    replace(count, in_class_ ? members : (is_negated ? "[^" : "[") + members + "]");
  }

  void group() {
    for (const std::string_view opening : {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"}) {
      if (!pattern_.substr(at_).starts_with(opening)) continue;
      ignores_case_.push_back(opening == "(?i:" || ignores_case());
      return copy(opening.size());
    }
    if (pattern_.substr(at_, 2) == "(?" || pattern_.substr(at_, 2) == "(*") {
      refuse("a group '" + std::string(pattern_.substr(at_, 3)) + "'");
    }
    ignores_case_.push_back(ignores_case());
    copy(1);
  }

  // {n}, {n,} or {n,m}. A '+' behind it is another repetition in one and possessive in the other.
  void repetition() {
    std::size_t end = at_ + 1;
    while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
    const bool has_least = end > at_ + 1;
    if (pattern_.substr(end, 1) == ",") ++end;
    while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
    if (!has_least || pattern_.substr(end, 1) != "}" || pattern_.substr(end + 1, 1) == "+") {
      refuse("a repetition other than {n}, {n,} or {n,m}");
    }
    copy(end + 1 - at_);
  }

  void copy(std::size_t count) { replace(count, pattern_.substr(at_, count)); }
  void replace(std::size_t count, std::string_view by) {
    out_ += by;
    at_ += count;
  }
  [[noreturn]] void refuse(const std::string& what) const {
    field_.fail("a regular expression without " + io::shown(what));
  }

  const JsonField& field_;
  const std::string_view pattern_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::vector<bool> ignores_case_;  // of the groups that are open
  char letter_ = '\0';              // the last one in "(?i:"
  std::string out_;
};

}  // namespace

Regex::Regex(const JsonField& pattern) {
  const std::string problem = compile(Translation(pattern).result());
  if (!problem.empty()) pattern.fail("a regular expression (" + problem + ")");
}

Regex Regex::trusted(const std::string& pattern) {
  Regex regex;
  [[maybe_unused]] const std::string problem = regex.compile(pattern);
  assert(problem.empty() && "the library's own patterns are right");
  return regex;
}

std::string Regex::compile(const std::string& pattern) {
  int error = 0;
  std::size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return reinterpret_cast<const char*>(message.data());
  }
  code_ = {code, [](const pcre2_code* owned) { pcre2_code_free(const_cast<pcre2_code*>(owned)); }};
  std::uint32_t can_be_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &can_be_empty);
  if (can_be_empty != 0) return "it matches nothing at all";
  pcre2_jit_compile(code,
                    PCRE2_JIT_COMPLETE);  // only faster: where it cannot, the interpreter runs
  return {};
}

bool Regex::matches(std::string_view text) const {
  bool found = false;
  for_each_match(text, [&](std::size_t, std::size_t) { found = true; });
  return found;
}

void Regex::for_each_match(std::string_view text,
                           const std::function<void(std::size_t, std::size_t)>& each) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  // Work may go with the text, and not beyond.
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (!match || !limits) throw std::bad_alloc();
  constexpr std::size_t kLeast = 10'000'000, kMost = UINT32_MAX, kEachByte = 8;
  pcre2_set_match_limit(limits.get(), static_cast<std::uint32_t>(std::min(
                                          kMost, std::max(kLeast, kEachByte * text.size()))));
  const std::size_t* span = pcre2_get_ovector_pointer(match.get());
  for (std::size_t at = 0; at < text.size(); at = span[1]) {
    const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                   text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), limits.get());
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      std::array<PCRE2_UCHAR, 256> message{};
      pcre2_get_error_message(result, message.data(), message.size());
      throw Error(std::string("text to encode: the tokenizer's regular expression failed: ") +
                  reinterpret_cast<const char*>(message.data()));
    }
    if (span[1] <= at) return;  // a lookbehind's \K could do that; none is let through
    each(span[0], span[1]);
  }
}

}  // namespace memlayers::text

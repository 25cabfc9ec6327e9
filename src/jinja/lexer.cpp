// SPDX-License-Identifier: Apache-2.0
#include "jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "io/shown.h"
#include "io/utf8.h"
#include "jinja/characters.h"
#include "jinja/numbers.h"
#include "memlayers/error.h"

namespace memlayers::jinja {
namespace {

bool is_digit_of(char c, int base) {
  if (base <= 10) return c >= '0' && c < '0' + base;
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}
bool begins_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool goes_on_name(char c) { return begins_name(c) || (c >= '0' && c <= '9'); }

// "\r\n" and "\r" are "\n"; the last one of all is left out.
std::string with_plain_lines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
    } else {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  Lexer(const std::string& name, std::string_view source)
      : name_(name), source_(with_plain_lines(source)), text_(source_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_text();
    put(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const { fail(problem, line_); }
  [[noreturn]] void fail(const std::string& problem, int line) const {
    throw Error(place_of(name_, line) + problem);
  }

  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  bool looks_at(std::string_view wanted) const { return text_.substr(at_).starts_with(wanted); }
  bool skip(std::string_view wanted) {
    if (!looks_at(wanted)) return false;
    skip_to(at_ + wanted.size());
    return true;
  }
  void skip_to(std::size_t end) {
    line_ += static_cast<int>(std::ranges::count(text_.substr(at_, end - at_), '\n'));
    at_ = end;
  }
  std::size_t behind_spaces(std::size_t at) const {
    while (at < text_.size()) {
      const io::Utf8Character next = io::decode_utf8(text_.substr(at));
      if (!is_space(next.code)) break;
      at += next.bytes;
    }
    return at;
  }
  void put(TokenKind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .line = line_, .text = std::move(text)});
  }

  // The next tag of any kind, and the text before it.
  void read_text() {
    std::size_t tag = at_;
    while (true) {
      tag = std::min(text_.find('{', tag), text_.size());
      if (tag + 1 >= text_.size()) tag = text_.size();
      if (tag == text_.size() || text_[tag + 1] == '{' || text_[tag + 1] == '%' ||
          text_[tag + 1] == '#') {
        break;
      }
      ++tag;
    }
    const std::size_t begin = at_;
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    const bool is_expression = tag < text_.size() && text_[tag + 1] == '{';
    put_text(begin, tag < text_.size() ? stripped_end(begin, tag, sign, is_expression) : tag);
    skip_to(tag);
    if (tag == text_.size()) return;
    const char kind = text_[tag + 1];
    skip_to(at_ + (sign == '-' || sign == '+' ? 3 : 2));
    if (kind == '#') {
      read_comment();
    } else if (kind == '{') {
      put(TokenKind::kExpression);
      read_tokens("}}", TokenKind::kExpressionEnd);
    } else if (const auto end = end_of_word_tag(at_, "raw", false)) {
      skip_to(*end);
      read_raw();
    } else {
      put(TokenKind::kTag);
      read_tokens("%}", TokenKind::kTagEnd);
    }
  }

  void put_text(std::size_t begin, std::size_t end) {
    if (begin < end) put(TokenKind::kText, std::string(text_.substr(begin, end - begin)));
  }

  // Where the text before a tag ends, by the sign of the tag.
  std::size_t stripped_end(std::size_t begin, std::size_t tag, char sign,
                           bool is_expression) const {
    const std::string_view before = text_.substr(begin, tag - begin);
    if (sign == '-') {
      std::size_t end = begin;
      for_each_character(before, [&](char32_t code, std::size_t, std::size_t stop) {
        if (!is_space(code)) end = begin + stop;
      });
      return end;
    }
    if (sign == '+' || is_expression) return tag;
    const std::size_t line_end = before.rfind('\n');
    if (line_end == std::string_view::npos && !(begin == 0 || text_[begin - 1] == '\n')) return tag;
    const std::size_t line = line_end == std::string_view::npos ? begin : begin + line_end + 1;
    return behind_spaces(line) >= tag ? line : tag;
  }

  // Behind "-%}" all spaces go, behind "%}" one end of a line.
  std::size_t behind_end(std::size_t at, char sign) const {
    if (sign == '-') return behind_spaces(at);
    return sign != '+' && at < text_.size() && text_[at] == '\n' ? at + 1 : at;
  }

  void read_comment() {
    const int line = line_;
    const std::size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) fail("expected the end of the comment, got none", line);
    const char sign =
        end > at_ && (text_[end - 1] == '-' || text_[end - 1] == '+') ? text_[end - 1] : '\0';
    skip_to(behind_end(end + 2, sign));
  }

  // Where a tag "raw" or "endraw" ends, of which `at` is behind the "{%" and its sign.
  std::optional<std::size_t> end_of_word_tag(std::size_t at, std::string_view word,
                                             bool trims) const {
    at = behind_spaces(at);
    if (!text_.substr(at).starts_with(word)) return std::nullopt;
    at = behind_spaces(at + word.size());
    char sign = '\0';
    if (at < text_.size() && (text_[at] == '-' || (trims && text_[at] == '+'))) sign = text_[at++];
    if (!text_.substr(at).starts_with("%}")) return std::nullopt;
    at += 2;
    // "{% raw %}" keeps the end of its line.
    return trims ? behind_end(at, sign) : (sign == '-' ? behind_spaces(at) : at);
  }

  void read_raw() {
    const int line = line_;
    const std::size_t begin = at_;
    for (std::size_t tag = text_.find("{%", at_); tag != std::string_view::npos;
         tag = text_.find("{%", tag + 1)) {
      const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
      const bool has_sign = sign == '-' || sign == '+';
      const auto end = end_of_word_tag(tag + (has_sign ? 3 : 2), "endraw", true);
      if (!end) continue;
      put_text(begin, stripped_end(begin, tag, sign, false));
      skip_to(*end);
      return;
    }
    fail("expected \"{% endraw %}\", got none", line);
  }

  void read_tokens(std::string_view end, TokenKind end_kind) {
    const int line = line_;
    std::string open;  // the brackets that are to be closed
    while (true) {
      skip_to(behind_spaces(at_));
      if (at_ == text_.size()) fail("expected \"" + std::string(end) + "\", got the end", line);
      if (open.empty()) {
        const bool has_sign = peek() == '-' || (peek() == '+' && end_kind == TokenKind::kTagEnd);
        if (text_.substr(at_ + (has_sign ? 1 : 0)).starts_with(end)) {
          const char sign = has_sign ? peek() : '\0';
          put(end_kind);
          const std::size_t behind = at_ + (has_sign ? 1 : 0) + end.size();
          // Behind an expression the end of a line stays.
          skip_to(end_kind == TokenKind::kTagEnd ? behind_end(behind, sign)
                  : sign == '-'                  ? behind_spaces(behind)
                                                 : behind);
          return;
        }
      }
      read_token(open);
    }
  }

  void read_token(std::string& open) {
    if (const char c = peek(); c >= '0' && c <= '9') return read_number();
    if (begins_name(peek())) {
      std::size_t end = at_;
      while (end < text_.size() && goes_on_name(text_[end])) ++end;
      put(TokenKind::kName, std::string(text_.substr(at_, end - at_)));
      return skip_to(end);
    }
    if (peek() == '"' || peek() == '\'') return read_string();
    constexpr std::array<std::string_view, 6> kLong{"**", "//", "==", "!=", ">=", "<="};
    for (const std::string_view symbol : kLong) {
      if (!looks_at(symbol)) continue;
      put(TokenKind::kOperator, std::string(symbol));
      return skip_to(at_ + 2);
    }
    constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
    if (kShort.find(peek()) == std::string_view::npos || peek() == '\0') {
      fail("expected an expression, got " + io::quote(text_.substr(at_), 20));
    }
    balance(open, peek());
    put(TokenKind::kOperator, std::string(1, peek()));
    skip_to(at_ + 1);
  }

  void balance(std::string& open, char c) {
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c != ')' && c != ']' && c != '}') return;
    if (open.empty() || open.back() != c) {
      fail((open.empty() ? std::string("expected no bracket to be closed")
                         : "expected " + io::quote(open.substr(open.size() - 1))) +
           ", got " + io::quote(std::string_view(&c, 1)));
    }
    open.pop_back();
  }

  // As far as `is` holds, with single underscores between.
  std::size_t behind_digits(std::size_t at, int base) const {
    while (at < text_.size() &&
           (is_digit_of(text_[at], base) ||
            (text_[at] == '_' && at + 1 < text_.size() && is_digit_of(text_[at + 1], base)))) {
      ++at;
    }
    return at;
  }

  void read_number() {
    const bool is_behind_dot = at_ > 0 && text_[at_ - 1] == '.';
    std::size_t end = behind_digits(at_, 10);
    bool is_real = false;
    if (!is_behind_dot) {
      if (end + 1 < text_.size() && text_[end] == '.' && is_digit_of(text_[end + 1], 10)) {
        end = behind_digits(end + 1, 10);
        is_real = true;
      }
      if (end < text_.size() && (text_[end] | 0x20) == 'e') {
        std::size_t power = end + 1;
        if (power < text_.size() && (text_[power] == '+' || text_[power] == '-')) ++power;
        if (power < text_.size() && is_digit_of(text_[power], 10)) {
          end = behind_digits(power, 10);
          is_real = true;
        }
      }
    }
    if (!is_real && peek() == '0' && end == at_ + 1) {
      const char letter = static_cast<char>(peek(1) | 0x20);
      const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
      const std::size_t first = at_ + 2 + (peek(2) == '_' ? 1 : 0);
      if (base != 0 && first < text_.size() && is_digit_of(text_[first], base)) {
        end = behind_digits(first, base);
      }
    } else if (!is_real && peek() == '0') {  // "00" is a number, and of "012" the "0"
      end = at_;
      const auto is_zero = [&](std::size_t at) { return at < text_.size() && text_[at] == '0'; };
      while (is_zero(end) || (end < text_.size() && text_[end] == '_' && is_zero(end + 1))) ++end;
    }
    std::string digits(text_.substr(at_, end - at_));
    std::erase(digits, '_');
    put(is_real ? TokenKind::kReal : TokenKind::kInteger, digits);
    if (is_real) {
      tokens_.back().real = read_real(digits).value_or(0);
    } else {
      read_whole(digits);
    }
    skip_to(end);
  }

  void read_whole(const std::string& digits) {
    try {
      tokens_.back().integer = read_integer(digits, 0).value_or(0);
    } catch (const std::runtime_error& problem) {
      fail(problem.what());
    }
  }

  void read_string() {
    const int line = line_;
    const char quote = peek();
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) fail("expected the end of a string, got none", line);
    put(TokenKind::kString, unescaped(text_.substr(at_ + 1, end - at_ - 1)));
    skip_to(end + 1);
  }

  // Python's escapes.
  std::string unescaped(std::string_view raw) const {
    std::string text;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        text += raw[i];
        continue;
      }
      const char c = raw[++i];
      constexpr std::string_view kLetters = "abfnrtv", kMeant = "\a\b\f\n\r\t\v";
      if (const std::size_t known = kLetters.find(c); known != std::string_view::npos) {
        text += kMeant[known];
      } else if (c == '\\' || c == '\'' || c == '"') {
        text += c;
      } else if (c == '\n') {
        continue;  // the line goes on
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        append_code(text, raw.substr(i + 1, digits), digits, 16);
        i += digits;
      } else if (c >= '0' && c <= '7') {
        std::size_t digits = 1;
        while (digits < 3 && i + digits < raw.size() && is_digit_of(raw[i + digits], 8)) ++digits;
        append_code(text, raw.substr(i, digits), digits, 8);
        i += digits - 1;
      } else if (c == 'N') {
        fail("expected a character by its number, got one by its name");
      } else {
        text += '\\';
        text += c;
      }
    }
    return text;
  }

  void append_code(std::string& text, std::string_view digits, std::size_t wanted, int base) const {
    char32_t code = 0;
    bool is_whole = digits.size() == wanted;
    for (const char c : digits) {
      is_whole = is_whole && is_digit_of(c, base);
      const int value = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
      code = code * static_cast<char32_t>(base) + static_cast<char32_t>(value);
    }
    if (!is_whole || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      fail("expected the number of a character in an escape, got " + io::quote(digits));
    }
    io::append_utf8(text, code);
  }

  const std::string& name_;
  const std::string source_;
  const std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::string place_of(const std::string& name, int line) {
  return name + ": line " + std::to_string(line) + ": ";
}

std::vector<Token> tokenize(const std::string& name, std::string_view source) {
  return Lexer(name, source).run();
}

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/regex_tree.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::uint32_t kMostRounds = 1000;
constexpr int kMostGroups = 32;  // within one another

const Characters kDigits = {{'0', '9'}};
const Characters kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Characters kSpaces = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                            {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                            {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Characters kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

class RegexReader {
 public:
  explicit RegexReader(std::string_view regex) : codes_(code_points(regex)) {}

  std::vector<RegexWay> ways() {
    std::vector<RegexWay> ways;
    do {
      RegexWay way;
      way.at_start = take('^');
      way.tree = sequence();
      way.at_end = take('$');
      ways.push_back(std::move(way));
    } while (take('|'));
    if (!is_end()) refuse(peek() == ')' ? "a ')' without its '('" : "an anchor inside");
    return ways;
  }

 private:
  [[noreturn]] static void refuse(const std::string& what) { throw Error(what); }
  bool is_end() const { return at_ == codes_.size(); }
  char32_t peek() const { return is_end() ? U'\0' : codes_[at_]; }
  char32_t next() {
    if (is_end()) refuse("an end inside a group, a class or an escape");
    return codes_[at_++];
  }
  bool take(char32_t code) {
    if (is_end() || codes_[at_] != code) return false;
    ++at_;
    return true;
  }

  RegexTree sequence() {
    RegexTree all;
    while (!is_end() && peek() != '|' && peek() != ')' && peek() != '$') {
      all.parts.push_back(repeated(atom()));
    }
    return all;
  }

  static RegexTree one_of(const Characters& characters) {
    return {.kind = RegexTree::Kind::kCharacter, .characters = united(characters)};
  }

  RegexTree atom() {
    const char32_t code = next();
    switch (code) {
      case '(':
        return group();
      case '[':
        return one_of(bracketed());
      case '.':
        return one_of(complement(kLineEnds));
      case '\\':
        return one_of(escape(false));
      case '^':
        refuse("an anchor inside");
      case '*':
      case '+':
      case '?':
      case '{':
      case '}':
      case ']':
        refuse("a " + io::quote(std::string(1, static_cast<char>(code))) + " for itself");
      default:
        return one_of({{code, code}});
    }
  }

  RegexTree group() {
    if (take('?') && !take(':')) refuse("look-around, named groups or flags");
    if (++groups_ > kMostGroups) refuse(std::to_string(kMostGroups) + " groups in one another");
    RegexTree either{.kind = RegexTree::Kind::kEither};
    do {
      either.parts.push_back(sequence());
    } while (take('|'));
    if (peek() == '$') refuse("an anchor inside");
    if (next() != ')') refuse("a group that does not end");
    --groups_;
    return either;
  }

  RegexTree repeated(RegexTree part) {
    std::uint32_t least = 0, most = kUnlimited;
    if (take('*')) {
    } else if (take('+')) {
      least = 1;
    } else if (take('?')) {
      most = 1;
    } else if (take('{')) {
      least = most = count();
      if (take(',')) most = peek() == '}' ? kUnlimited : count();
      if (!take('}') || least > most) refuse("a \"{\" that is no number of times");
    } else {
      return part;
    }
    take('?');  // whether it takes much or little makes no difference to what is found
    if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{') {
      refuse("a repetition of a repetition");
    }
    return {
        .kind = RegexTree::Kind::kRepeat, .parts = {std::move(part)}, .least = least, .most = most};
  }

  std::uint32_t count() {
    std::uint32_t number = 0;
    if (peek() < '0' || peek() > '9') refuse("a \"{\" that is no number of times");
    while (peek() >= '0' && peek() <= '9') {
      number = number * 10 + static_cast<std::uint32_t>(next() - '0');
      if (number > kMostRounds) refuse("more than " + std::to_string(kMostRounds) + " times");
    }
    return number;
  }

  Characters bracketed() {
    const bool is_not = take('^');
    Characters all;
    while (!take(']')) {
      const Characters first = member();
      if (peek() == '-' && at_ + 1 < codes_.size() && codes_[at_ + 1] != ']') {
        ++at_;
        const Characters last = member();
        if (!is_one(first) || !is_one(last) || first[0].first > last[0].first) {
          refuse("a range that is none");
        }
        all.push_back({first[0].first, last[0].first});
      } else {
        all.insert(all.end(), first.begin(), first.end());
      }
    }
    return is_not ? complement(all) : all;
  }
  static bool is_one(const Characters& characters) {
    return characters.size() == 1 && characters[0].first == characters[0].last;
  }
  Characters member() {
    const char32_t code = next();
    return code == '\\' ? escape(true) : Characters{{code, code}};
  }

  Characters escape(bool in_brackets) {
    const char32_t code = next();
    switch (code) {
      case 'd':
        return kDigits;
      case 'D':
        return complement(kDigits);
      case 'w':
        return kWord;
      case 'W':
        return complement(kWord);
      case 's':
        return kSpaces;
      case 'S':
        return complement(kSpaces);
      case 't':
        return {{'\t', '\t'}};
      case 'n':
        return {{'\n', '\n'}};
      case 'v':
        return {{'\v', '\v'}};
      case 'f':
        return {{'\f', '\f'}};
      case 'r':
        return {{'\r', '\r'}};
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      default:
        break;
    }
    constexpr std::u32string_view kSigns = U"^$\\.*+?()[]{}|/-";
    if (kSigns.find(code) == std::u32string_view::npos) {
      std::string sign = "\\";
      sign += code < 0x80 ? std::string(1, static_cast<char>(code)) : "...";
      refuse("the escape " + io::quote(sign) + (in_brackets ? " in brackets" : ""));
    }
    return {{code, code}};
  }
  Characters hex(int digits) {
    char32_t code = 0;
    for (; digits > 0; --digits) {
      const char32_t c = next() | 0x20;
      if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) refuse("an escape that is no number");
      code = code * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (code >= 0xD800 && code <= 0xDFFF) refuse("surrogates");
    return {{code, code}};
  }

  const std::u32string codes_;
  std::size_t at_ = 0;
  int groups_ = 0;
};

}  // namespace

std::vector<RegexWay> read_regex(std::string_view regex) { return RegexReader(regex).ways(); }

}  // namespace memlayers::api::grammar

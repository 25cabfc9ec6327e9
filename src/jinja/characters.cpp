// SPDX-License-Identifier: Apache-2.0
#include "jinja/characters.h"

#include <utf8proc.h>

namespace memlayers::jinja {
namespace {

utf8proc_category_t category(char32_t code) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

char32_t upper_of(char32_t code) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)));
}
char32_t title_of(char32_t code) {
  return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(code)));
}
char32_t lower_of(char32_t code) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}

bool is_cased(char32_t code) {
  return is_lower(code) || is_upper(code) || category(code) == UTF8PROC_CATEGORY_LT;
}

void append(std::string& text, char32_t code) { io::append_utf8(text, code); }

// The few that become two.
constexpr char32_t kSharpS = 0xDF, kDottedI = 0x130, kSigma = 0x3A3, kFinalSigma = 0x3C2;

void append_upper(std::string& text, char32_t code) {
  if (code == kSharpS) {
    text += "SS";
  } else {
    append(text, upper_of(code));
  }
}

void append_title(std::string& text, char32_t code) {
  if (code == kSharpS) {
    text += "Ss";
  } else {
    append(text, title_of(code));
  }
}

// `ends_word`: a cased character stands before it and none behind.
void append_lower(std::string& text, char32_t code, bool ends_word) {
  if (code == kDottedI) {
    text += "i\u0307";
  } else if (code == kSigma && ends_word) {
    append(text, kFinalSigma);
  } else {
    append(text, lower_of(code));
  }
}

}  // namespace

bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_line_end(char32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_lower(char32_t code) { return utf8proc_islower(static_cast<utf8proc_int32_t>(code)) != 0; }
bool is_upper(char32_t code) { return utf8proc_isupper(static_cast<utf8proc_int32_t>(code)) != 0; }

bool is_letter(char32_t code) {
  switch (category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}

bool is_decimal(char32_t code) { return category(code) == UTF8PROC_CATEGORY_ND; }

bool is_digit(char32_t code) {
  return is_decimal(code) || code == 0xB2 || code == 0xB3 || code == 0xB9 || code == 0x2070 ||
         (code >= 0x2074 && code <= 0x2079) || (code >= 0x2080 && code <= 0x2089) ||
         (code >= 0x2460 && code <= 0x2468);
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::size_t byte_of(std::string_view text, std::size_t character) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
    if (character-- == 0) return at;
  }
  return text.size();
}

std::string_view stripped(std::string_view text) {
  std::size_t begin = text.size(), end = 0;
  for_each_character(text, [&](char32_t code, std::size_t from, std::size_t to) {
    if (is_space(code)) return;
    if (from < begin) begin = from;
    end = to;
  });
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

Text with_case(const Text& text, Casing casing) {
  const std::string& bytes = text.bytes();
  Text result;
  bool behind_cased = false, is_first = true;
  const auto cased_follows = [&](std::size_t at) {
    return at < bytes.size() && is_cased(io::decode_utf8(std::string_view(bytes).substr(at)).code);
  };
  for_each_character(bytes, [&](char32_t code, std::size_t begin, std::size_t end) {
    const bool ends_word = behind_cased && !cased_follows(end);
    std::string made;
    switch (casing) {
      case Casing::kUpper:
        append_upper(made, code);
        break;
      case Casing::kLower:
        append_lower(made, code, ends_word);
        break;
      case Casing::kCapitalize:
        is_first ? append_title(made, code) : append_lower(made, code, ends_word);
        break;
      case Casing::kTitle:
        behind_cased ? append_lower(made, code, ends_word) : append_title(made, code);
        break;
      case Casing::kSwap:
        is_upper(code) ? append_lower(made, code, ends_word) : append_upper(made, code);
        break;
    }
    result.append(made, text.is_template_at(begin));
    behind_cased = is_cased(code);
    is_first = false;
  });
  return result;
}

}  // namespace memlayers::jinja

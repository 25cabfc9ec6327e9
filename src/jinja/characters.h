// SPDX-License-Identifier: Apache-2.0
// Characters as Python's str knows them. Texts are valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "jinja/text.h"

namespace memlayers::jinja {

bool is_space(char32_t code);      // of str.isspace()
bool is_line_end(char32_t code);   // of str.splitlines(): '\n', '\r', U+2028 and others
bool is_printable(char32_t code);  // what repr() leaves as it is
bool is_lower(char32_t code);
bool is_upper(char32_t code);
bool is_letter(char32_t code);
bool is_digit(char32_t code);  // of str.isdigit()
bool is_decimal(char32_t code);

std::size_t count_characters(std::string_view text);
// The place in bytes of a character by its number, at most the end.
std::size_t byte_of(std::string_view text, std::size_t character);
// each(code, begin, end) for every character.
template <class Each>
void for_each_character(std::string_view text, const Each& each);

std::string_view stripped(std::string_view text);  // without spaces at its ends

// As str.upper(), str.lower(), str.capitalize(), str.title() and str.swapcase(); each character
// keeps where it comes from.
enum class Casing { kUpper, kLower, kCapitalize, kTitle, kSwap };
Text with_case(const Text& text, Casing casing);

}  // namespace memlayers::jinja

#include "io/utf8.h"

namespace memlayers::jinja {

template <class Each>
void for_each_character(std::string_view text, const Each& each) {
  for (std::size_t at = 0; at < text.size();) {
    const io::Utf8Character next = io::decode_utf8(text.substr(at));
    each(next.code, at, at + next.bytes);
    at += next.bytes;
  }
}

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
// UTF-8 as Unicode 15 defines it (table 3-7): no overlong forms, no surrogates, nothing above
// U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace memlayers::io {

struct Utf8Character {
  char32_t code = 0;
  std::size_t bytes =
      0;  // of the character, or of what is wrong (the longest beginning of a character)
  bool valid = false;
};

// The character at the start of `text`, which is not empty.
Utf8Character decode_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code);

// The offset of the first byte that is not part of a character; text.size() where all is well.
std::size_t valid_utf8_bytes(std::string_view text);

// Throws Error("<what>: expected UTF-8, got byte 0x.. at offset ..").
void check_utf8(std::string_view text, std::string_view what, std::size_t offset = 0);

}  // namespace memlayers::io

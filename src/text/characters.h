// SPDX-License-Identifier: Apache-2.0
// Characters at the ends of valid UTF-8 that is not empty.
#pragma once

#include <string_view>

#include "text/utf8.h"

namespace memlayers::text {

inline std::string_view first_character(std::string_view text) {
  return text.substr(0, decode_utf8(text).bytes);
}

inline std::string_view last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "text/grapheme.h"

#include <utf8proc.h>

#include "text/utf8.h"

namespace memlayers::text {

std::size_t grapheme_bytes(std::string_view text) {
  const auto is_plain = [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\r'; };
  if (is_plain(text[0]) && (text.size() == 1 || is_plain(text[1]))) return 1;
  Utf8Character left = decode_utf8(text);
  std::size_t bytes = left.bytes;
  utf8proc_int32_t state = 0;
  while (bytes < text.size()) {
    const Utf8Character right = decode_utf8(text.substr(bytes));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(left.code),
                                         static_cast<utf8proc_int32_t>(right.code), &state)) {
      break;
    }
    bytes += right.bytes;
    left = right;
  }
  return bytes;
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "io/shown.h"

#include <cstdint>

#include "io/utf8.h"

namespace memlayers::io {
namespace {

// The lowest `digits` hexadecimal digits of `code`.
std::string hex_digits(std::uint32_t code, int digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (int i = digits; i-- > 0;) text += kDigits[(code >> (4 * i)) & 15];
  return text;
}

// Marks of direction, separators of lines, what has no width: all that is seen of them is what they
// do to others.
bool is_unseen(char32_t code) {
  return (code >= 0x80 && code < 0xA0) || code == 0xAD || code == 0x61C || code == 0x200B ||
         code == 0x200E || code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
         (code >= 0x2060 && code <= 0x206F) || code == 0xFEFF;
}

std::string escaped(std::string_view character, const Utf8Character& decoded) {
  if (!decoded.valid) {
    std::string text;
    for (const char byte : character) {
      text += "\\x" + hex_digits(static_cast<std::uint8_t>(byte), 2);
    }
    return text;
  }
  if (decoded.code == '\n') return "\\n";
  if (decoded.code == '\r') return "\\r";
  if (decoded.code == '\t') return "\\t";
  if (decoded.code < 0x20 || decoded.code == 0x7F) return "\\x" + hex_digits(decoded.code, 2);
  if (is_unseen(decoded.code)) return "\\u" + hex_digits(decoded.code, 4);
  return std::string(character);
}

}  // namespace

std::string shown(std::string_view text, std::size_t most) {
  std::string safe;
  for (std::size_t count = 0; !text.empty(); ++count) {
    if (count == most) return safe + "...";
    const Utf8Character decoded = decode_utf8(text);
    safe += escaped(text.substr(0, decoded.bytes), decoded);
    text.remove_prefix(decoded.bytes);
  }
  return safe;
}

std::string quote(std::string_view text, std::size_t most) {
  return "\"" + shown(text, most) + "\"";
}

}  // namespace memlayers::io

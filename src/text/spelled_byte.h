// SPDX-License-Identifier: Apache-2.0
// Bytes as tokens: "<0x41>".
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace memlayers::text {

constexpr std::size_t kSpelledByteSize = 6;

inline std::string spelled_byte(unsigned char byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">";
}

// As tokenizers reads them: either case, and a '+' before one digit.
inline std::optional<unsigned char> read_spelled_byte(std::string_view token) {
  if (token.size() != kSpelledByteSize || !token.starts_with("<0x") || !token.ends_with('>')) {
    return std::nullopt;
  }
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

}  // namespace memlayers::text

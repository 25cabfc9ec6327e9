// SPDX-License-Identifier: Apache-2.0
#include "text/byte_characters.h"

#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr std::size_t kBytes = 256;

std::array<char32_t, kBytes> codes() {
  std::array<char32_t, kBytes> made;
  char32_t next = kBytes;
  for (std::size_t byte = 0; byte < kBytes; ++byte) {
    const bool is_printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    made[byte] = is_printable ? static_cast<char32_t>(byte) : next++;
  }
  return made;
}

}  // namespace

const std::array<std::string, kBytes>& byte_characters() {
  static const std::array<std::string, kBytes> characters = [] {
    std::array<std::string, kBytes> made;
    const auto all = codes();
    for (std::size_t byte = 0; byte < kBytes; ++byte) append_utf8(made[byte], all[byte]);
    return made;
  }();
  return characters;
}

std::optional<unsigned char> byte_of_character(char32_t code) {
  constexpr char32_t kEnd = 2 * kBytes;  // above all of them
  static const std::array<int, kEnd> bytes = [] {
    std::array<int, kEnd> made;
    made.fill(-1);
    const auto all = codes();
    for (std::size_t byte = 0; byte < kBytes; ++byte) made[all[byte]] = static_cast<int>(byte);
    return made;
  }();
  if (code >= kEnd || bytes[code] < 0) return std::nullopt;
  return static_cast<unsigned char>(bytes[code]);
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "text/utf8_stream.h"

#include <algorithm>
#include <utility>

namespace memlayers::text {
namespace {

// How many bytes at the end are the beginning of a character and no more.
std::size_t unfinished_bytes(std::string_view bytes) {
  constexpr std::size_t kMost = 3;
  for (std::size_t count = 1; count <= std::min(kMost, bytes.size()); ++count) {
    const std::string_view end = bytes.substr(bytes.size() - count);
    if ((static_cast<unsigned char>(end.front()) & 0xC0) == 0x80) continue;
    const Utf8Character character = decode_utf8(end);
    // What is wrong in a longer text is shorter than the text.
    const bool is_begun = !character.valid && character.bytes == count &&
                          static_cast<unsigned char>(end.front()) >= 0xC2 &&
                          static_cast<unsigned char>(end.front()) <= 0xF4;
    return is_begun ? count : 0;
  }
  return 0;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  const std::size_t whole = held_.size() - unfinished_bytes(held_);
  std::string text = replace_invalid_utf8(std::string_view(held_).substr(0, whole), replace_);
  held_.erase(0, whole);
  return text;
}

std::string Utf8Stream::finish() {
  return replace_invalid_utf8(std::exchange(held_, {}), replace_);
}

}  // namespace memlayers::text

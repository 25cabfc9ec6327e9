// SPDX-License-Identifier: Apache-2.0
#include "text/foreign_file.h"

#include <algorithm>
#include <cctype>

#include "io/file_kind.h"

namespace memlayers::text {
namespace {

bool is_base64(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '+' || c == '/' || c == '=';
}

// "IQ== 0": a token's bytes and its rank.
bool is_tiktoken_line(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const std::size_t space = line.find(' ');
  if (space == 0 || space == std::string_view::npos || space % 4 != 0) return false;
  const std::string_view token = line.substr(0, space), rank = line.substr(space + 1);
  return !rank.empty() && std::all_of(token.begin(), token.end(), is_base64) &&
         std::all_of(rank.begin(), rank.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_tiktoken(std::string_view bytes) {
  constexpr std::size_t kLooked = 1 << 12;
  bytes = bytes.substr(0, kLooked);
  for (int lines = 0; lines < 2; ++lines) {  // one may be chance
    const std::size_t end = bytes.find('\n');
    if (end == std::string_view::npos || !is_tiktoken_line(bytes.substr(0, end))) return false;
    bytes.remove_prefix(end + 1);
  }
  return true;
}

}  // namespace

std::string_view foreign_kind(std::string_view bytes) {
  if (is_tiktoken(bytes)) {
    return "a vocabulary of tiktoken, which has no regular expression in it";
  }
  return io::known_kind(bytes);
}

}  // namespace memlayers::text

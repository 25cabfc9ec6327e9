// SPDX-License-Identifier: Apache-2.0
// What a decoder makes of bytes that are not UTF-8.
#pragma once

#include <string>
#include <string_view>

#include "io/utf8.h"

namespace memlayers::text {

using io::append_utf8;
using io::check_utf8;
using io::decode_utf8;
using io::Utf8Character;
using io::valid_utf8_bytes;

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// How many U+FFFD stand for a run of wrong bytes.
enum class Replace {
  kEachByte,  // SentencePiece
  kEachPart,  // one for the longest beginning of a character: Unicode's advice, Rust, Python
};
std::string replace_invalid_utf8(std::string_view bytes, Replace replace);

}  // namespace memlayers::text

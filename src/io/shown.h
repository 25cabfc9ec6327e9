// SPDX-License-Identifier: Apache-2.0
// Text of a file in a message or on a terminal. It may hold anything: what would move the cursor,
// end the line, turn the direction of writing or go on for megabytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace memlayers::io {

// More of a foreign text than this tells a reader no more.
inline constexpr std::size_t kMostShown = 200;

// `text` with escapes for control characters (\n, \t, \x1b), bytes that are not UTF-8 (\xff) and
// characters that change how others are written (\u202e); after `most` characters "...". What was
// escaped stays as it is when escaped again.
std::string shown(std::string_view text, std::size_t most = kMostShown);

// shown() between quotation marks.
std::string quote(std::string_view text, std::size_t most = kMostShown);

}  // namespace memlayers::io

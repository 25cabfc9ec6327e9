// SPDX-License-Identifier: Apache-2.0
// What a reader sees as one character (extended grapheme clusters, Unicode's annex 29).
#pragma once

#include <cstddef>
#include <string_view>

namespace memlayers::text {

// The bytes of the first one of valid UTF-8 that is not empty.
std::size_t grapheme_bytes(std::string_view text);

}  // namespace memlayers::text

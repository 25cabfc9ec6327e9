// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <charconv>
#include <string>

namespace memlayers::io {

// The shortest text that reads back as the same number of its type: 1e-05, where a double has more
// digits than anyone wrote.
template <class Number>
std::string number_text(Number value) {
  std::array<char, 32> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

}  // namespace memlayers::io

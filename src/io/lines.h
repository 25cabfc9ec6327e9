// SPDX-License-Identifier: Apache-2.0
// Lines of text that people and other programs wrote: prompts, facts, data.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::io {

// What some editors put before the first line of a file in UTF-8; it is no part of the text.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// `line` without the "\r" of a line end of Windows and, if it is the first of its text, without a
// byte-order mark.
std::string_view plain_line(std::string_view line, bool is_first);

// each(line, "<name>:<number>") for the lines of a whole text, which end in "\n" or "\r\n". Throws
// Error naming the line for one that is not UTF-8.
void for_each_line(
    std::string_view text, const std::string& name,
    const std::function<void(std::string_view line, const std::string& where)>& each);

// Those that are not empty. Throws Error naming the text where there is none.
std::vector<std::string> lines_of(std::string_view text, const std::string& name);

}  // namespace memlayers::io

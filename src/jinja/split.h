// SPDX-License-Identifier: Apache-2.0
// Looking for strings in strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "jinja/run.h"
#include "jinja/text.h"

namespace memlayers::jinja {

// Where `part` stands in [begin, end), the first or the last; in time that goes with the length.
std::optional<std::size_t> place_of(std::string_view text, std::string_view part, std::size_t begin,
                                    std::size_t end, bool from_end);

// As str.split() and str.rsplit(); without a separator at runs of spaces.
std::vector<Text> split_text(Run& run, const Text& text, const Text* separator, std::int64_t most,
                             bool from_end);

// Of all cased characters, of at least one.
bool is_all_of_case(std::string_view text, bool is_upper);

}  // namespace memlayers::jinja

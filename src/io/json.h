// SPDX-License-Identifier: Apache-2.0
// JSON from outside, checked before it becomes a tree.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace memlayers::io {

// Throws Error beginning with `where` for what is not JSON in UTF-8, for a name that stands twice
// in an object (parsers differ in which of the two they believe) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// The value for an error message: ASCII, shortened.
std::string brief(const nlohmann::json& value);

}  // namespace memlayers::io

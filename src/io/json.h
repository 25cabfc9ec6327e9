// SPDX-License-Identifier: Apache-2.0
// JSON from outside, checked before it becomes a tree. Everything that reads JSON reads it here.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace memlayers::io {

// One value, and nothing but blanks around it. Time and memory grow with the length of `text`
// alone. Throws Error beginning with `where` for what is not JSON in UTF-8, for a number that no
// double holds, for a name that stands twice in an object (parsers differ in which of the two they
// believe) and for nesting deeper than 64.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// The same with the members of objects in the order of the text.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& where);

// The same of an object whose members are looked at one after the other, in the order of the text,
// so that no more than one of them is in memory.
void parse_json_members(
    std::string_view text, const std::string& where,
    const std::function<void(const std::string& name, const nlohmann::json& value)>& each);

// The value for an error message: one line, shortened.
std::string brief(const nlohmann::json& value);

}  // namespace memlayers::io

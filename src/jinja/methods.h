// SPDX-License-Identifier: Apache-2.0
// The methods of strings, lists, tuples and dicts that templates may call.
#pragma once

#include <optional>
#include <string_view>

#include "jinja/callable.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

// None where the type has no such attribute. One that changes a value is undefined, as in Jinja's
// immutable sandbox; throws Problem for one that Python has and we do not.
std::optional<Value> method_of(const Value& value, std::string_view name);

// What methods of strings and filters share.
Text replaced(Run& run, const Text& text, const Text& old, const Text& with, std::int64_t most);
Text trimmed(Run& run, const Text& text, const Value* characters, bool left, bool right);
Text joined(Run& run, const Text& separator, const Items& parts, bool takes_any);
std::vector<Text> lines_of(Run& run, const Text& text, bool keeps_ends);
Text centered(Run& run, const Text& text, std::int64_t width);

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
// Values to and from JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

struct JsonOptions {
  bool only_ascii = false;
  std::optional<Text> indent = {};  // of one level; absent: all in one line
  Text item_separator{", ", true}, key_separator{": ", true};
  bool sorts_keys = false;
};

// As Python's json.dumps() writes it. Strings keep where they come from; brackets, commas and
// numbers are the template's.
Text json_text(Run& run, const Value& value, const JsonOptions& options);

// Throws Problem for an integer that 64 bits do not hold.
Value value_of_json(const nlohmann::ordered_json& json, bool is_template);

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
// The table of configuration keys: what parsing, --set, --help-config and to_toml() share.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "memlayers/config.h"

namespace memlayers::io {

// A value as TOML has it; monostate: the key is absent.
using ConfigValue = std::variant<std::monostate, bool, std::int64_t, double, std::string,
                                 std::vector<std::int64_t>, std::vector<std::string>>;

struct ConfigKey {
  std::string section;  // "" for the top level
  std::string name;
  std::string type;  // as it is named in errors and in the help: "integer", "\"a\" or \"b\"", ...
  std::string sentence;
  // Takes a value of the right type; throws Error (without the file's name) for a wrong one.
  std::function<void(TrainConfig&, const ConfigValue&)> set;
  std::function<ConfigValue(const TrainConfig&)> get;

  std::string full_name() const { return section.empty() ? name : "[" + section + "] " + name; }
};

const std::vector<ConfigKey>& config_keys();

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// Files of one JSON object a line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "io/file_system.h"
#include "io/json.h"
#include "text/json_field.h"

namespace memlayers::edit {

// take(field) for each line that is not blank; errors name file and line.
template <class Take>
void for_each_json_line(const std::string& path, const Take& take) {
  const std::string bytes = io::read_text(io::posix(), path);
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string line = bytes.substr(begin, end - begin);
    begin = end + 1;
    const std::string where = path + ":" + std::to_string(++number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const nlohmann::json json = io::parse_json(line, where);
    take(text::JsonField(json, where));
  }
}

}  // namespace memlayers::edit

// SPDX-License-Identifier: Apache-2.0
// Files of one JSON object a line.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "io/file_system.h"
#include "io/json.h"
#include "io/json_field.h"
#include "io/lines.h"
#include "io/streams.h"

namespace memlayers::io {

// take(object, "name:line") for each line of `bytes` that is not blank; errors name both.
template <class Take>
void for_each_json_line_of(std::string_view bytes, const std::string& name, const Take& take) {
  for_each_line(bytes, name, [&](std::string_view line, const std::string& where) {
    if (line.find_first_not_of(" \t") == std::string_view::npos) return;
    const nlohmann::json json = parse_json(line, where);
    take(JsonField(json, where), where);
  });
}

// The same of a file.
template <class Take>
void for_each_json_line(const std::string& path, const Take& take) {
  for_each_json_line_of(read_stream_or_file(posix(), path), path, take);
}

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// JSON that the interface writes: members in the order in which they are put.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace memlayers::api {

using Json = nlohmann::ordered_json;

// On one line. Bytes that are not UTF-8 become U+FFFD: an answer is JSON whatever a file brought.
inline std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace memlayers::api

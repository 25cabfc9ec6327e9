// SPDX-License-Identifier: Apache-2.0
// Who may ask, and who may edit.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/engine.h"
#include "http/server.h"

namespace memlayers::api {

// Keys of either kind; an admin key may ask as well. Without any ask key everybody may ask; without
// any admin key, nobody edits where there are ask keys, and everybody where there are none.
struct Keys {
  std::vector<std::string> ask = {}, admin = {};
};

// One key a line. Throws Error naming the file for none, and for one with blanks or other
// characters that no header holds.
std::vector<std::string> read_keys(const std::string& path);

enum class Right { kNone, kAsk, kAdmin };

// Why the bearer of this header may not, if so. Looks at every key, in a time that does not tell
// how much of one was right.
std::optional<Refusal> refusal_of(const Keys& keys, Right right, const http::Request& header);

}  // namespace memlayers::api

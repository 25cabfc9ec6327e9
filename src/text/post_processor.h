// SPDX-License-Identifier: Apache-2.0
// "post_processor" of a tokenizer.json: the special tokens around a text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "text/json_field.h"

namespace memlayers::text {

struct Frame {
  std::vector<std::int32_t> prefix, suffix;
};

// `find` gives the id of a token. Throws Error for a post-processor that does more than put tokens
// before and behind one text.
Frame read_post_processor(
    const JsonField& field,
    const std::function<std::optional<std::int32_t>(const std::string&)>& find);

}  // namespace memlayers::text

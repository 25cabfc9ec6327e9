// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace memlayers::io {

// The candidate with the smallest edit distance to `name` (the first of equals); "" where there is
// none of at most 300 bytes.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace memlayers::io

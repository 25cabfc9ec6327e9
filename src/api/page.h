// SPDX-License-Identifier: Apache-2.0
// The page at "/", made of src/api/page by cmake/page.cmake: one HTML file without anything beside
// it.
#pragma once

#include <string_view>

namespace memlayers::api {

std::string_view page_html();
// Its Content-Security-Policy: its own script and style, by their hashes, and this server alone.
std::string_view page_policy();

}  // namespace memlayers::api

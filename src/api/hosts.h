// SPDX-License-Identifier: Apache-2.0
// The names by which a server without keys is asked.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "http/server.h"

namespace memlayers::api {

// The name in a Host header: without its port, in lower case, without the dot of a whole name.
std::string host_of(std::string_view header);
// localhost, 127.0.0.0/8, [::1].
bool is_loopback_host(std::string_view name);
// Whether a request is for one of `known` or for this machine. A page whose own name was made to
// lead to this machine (DNS rebinding) says that name, which browsers let no page change. One
// without a Host is of no browser.
bool is_for_us(const http::Request& header, const std::vector<std::string>& known);

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "jinja/node.h"

namespace memlayers::jinja {

// Throws Error with the line for what is no Jinja, for a statement that is none of ours, and for
// what nests too deep.
Body parse_template(const std::string& name, std::string_view source);

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "jinja/statements.h"

namespace memlayers::jinja {

// A macro that sees the names of where it is defined. The run keeps those names as long as it
// lives.
Value make_macro(Run& run, const MacroBody& body);

}  // namespace memlayers::jinja

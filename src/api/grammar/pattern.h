// SPDX-License-Identifier: Apache-2.0
// The regular expressions of JSON schemas (ECMA-262's, as far as they are regular) as nodes.
#pragma once

#include <string_view>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

// The characters of a string, without its quotation marks, that `regex` (valid UTF-8) finds
// something in: all of them where it stands between ^ and $. Throws Error saying what is not
// supported: a sentence's end behind "expected a pattern without ".
NodeId pattern(Program& program, std::string_view regex, NodeId next);

}  // namespace memlayers::api::grammar

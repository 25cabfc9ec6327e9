// SPDX-License-Identifier: Apache-2.0
// Characters between the quotation marks of a JSON string, as nodes of a Program.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

struct CodeRange {
  char32_t first = 0, last = 0;
};
using Characters = std::vector<CodeRange>;

Characters all_characters();                      // but surrogates, which are none
Characters united(const Characters& characters);  // ascending, apart, without surrogates
Characters complement(const Characters& characters);

// One of them as JSON spells it where nothing is escaped that need not be: the control characters,
// '"' and '\'.
NodeId spelled(Program& program, const Characters& characters, NodeId next);
// Of one string, whose characters beyond ASCII may also stand as \u escapes.
NodeId literal(Program& program, std::string_view text, NodeId next);
// A string of least to most characters with both quotation marks, spelled in any way.
NodeId any_string(Program& program, std::uint32_t least, std::uint32_t most, NodeId next);
// A string that is none of `names`, with both quotation marks, spelled as spelled() does.
NodeId other_string(Program& program, const std::set<std::u32string>& names, NodeId next);

std::u32string code_points(std::string_view utf8);

}  // namespace memlayers::api::grammar

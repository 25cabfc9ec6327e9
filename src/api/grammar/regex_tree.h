// SPDX-License-Identifier: Apache-2.0
// A regular expression as it was read.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "api/grammar/characters.h"

namespace memlayers::api::grammar {

struct RegexTree {
  enum class Kind : std::uint8_t { kCharacter, kSequence, kEither, kRepeat };
  Kind kind = Kind::kSequence;
  Characters characters = {};         // one of these
  std::vector<RegexTree> parts = {};  // of a repetition: one
  std::uint32_t least = 1, most = 1;  // kUnlimited: any number
};

struct RegexWay {  // one side of a '|' that is in no group
  RegexTree tree = {};
  bool at_start = false, at_end = false;  // behind ^, before $
};

// Throws Error as pattern() does.
std::vector<RegexWay> read_regex(std::string_view regex);

}  // namespace memlayers::api::grammar

// SPDX-License-Identifier: Apache-2.0
// What a token adds to a text, as bytes: also where these are a part of a character.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::text {

// Of each id of the vocabulary the bytes that it adds in the middle of a text; none for those that
// add nothing: special tokens, ids that no token has. Takes a microsecond or two a token.
std::vector<std::optional<std::string>> token_bytes(const Tokenizer& tokenizer);

}  // namespace memlayers::text

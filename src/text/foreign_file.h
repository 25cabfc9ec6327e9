// SPDX-License-Identifier: Apache-2.0
// What a file is that lies where a tokenizer was expected.
#pragma once

#include <string_view>

namespace memlayers::text {

// As io::known_kind(), and a vocabulary of tiktoken; "" where there is nothing to say.
std::string_view foreign_kind(std::string_view bytes);

}  // namespace memlayers::text

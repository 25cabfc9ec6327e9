// SPDX-License-Identifier: Apache-2.0
// The printable character that stands for each byte in byte-level vocabularies.
#pragma once

#include <array>
#include <optional>
#include <string>

namespace memlayers::text {

const std::array<std::string, 256>& byte_characters();
// The byte that a character stands for, if it stands for one.
std::optional<unsigned char> byte_of_character(char32_t code);

}  // namespace memlayers::text

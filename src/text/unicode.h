// SPDX-License-Identifier: Apache-2.0
// Properties of characters, as tokenizers 0.23 sees them.
#pragma once

#include <string>

namespace memlayers::text {

bool is_space(char32_t code);                             // White_Space
bool is_number(char32_t code);                            // N
bool is_mark(char32_t code);                              // M
bool is_nonspacing_mark(char32_t code);                   // Mn
bool is_other(char32_t code);                             // Cc, Cf, Co
bool is_punctuation(char32_t code);                       // P, and what ASCII has besides
void append_lowercase(std::string& text, char32_t code);  // one character or two

// Whether a normal form leaves it as it is, and what is around it where it is.
bool has_no_form(char32_t code);

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// Properties of characters in regular expressions, as Oniguruma 6.9.10 has them.
#pragma once

#include <string>
#include <string_view>

namespace memlayers::text {

// What stands for \p{category} between the brackets of a PCRE2 class: the property, and the
// characters that came to it behind PCRE2's version of Unicode.
std::string unicode_class(std::string_view category);

// \w of Rust's regex, between brackets.
std::string word_class();

}  // namespace memlayers::text

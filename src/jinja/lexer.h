// SPDX-License-Identifier: Apache-2.0
// A template as tokens, with the whitespace control that transformers asks for: trim_blocks and
// lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::jinja {

enum class TokenKind {
  kText,           // what stands outside of tags
  kExpression,     // "{{"
  kExpressionEnd,  // "}}"
  kTag,            // "{%"
  kTagEnd,         // "%}"
  kName,
  kString,
  kInteger,
  kReal,
  kOperator,
  kEnd,  // of the template
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text = {};  // of a string without quotes and escapes
  std::int64_t integer = 0;
  double real = 0;

  bool is(TokenKind wanted, std::string_view spelled) const {
    return kind == wanted && text == spelled;
  }
  bool is_operator(std::string_view spelled) const { return is(TokenKind::kOperator, spelled); }
  bool is_name(std::string_view spelled) const { return is(TokenKind::kName, spelled); }
};

// The last token is kEnd. `source` is valid UTF-8. Throws Error beginning with "<name>: line <n>:
// ".
std::vector<Token> tokenize(const std::string& name, std::string_view source);

// How an error begins.
std::string place_of(const std::string& name, int line);

}  // namespace memlayers::jinja

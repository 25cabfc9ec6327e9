// SPDX-License-Identifier: Apache-2.0
#include "jinja/token_reader.h"

#include <algorithm>

#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::jinja {
namespace {

std::string shown(const Token& token) {
  constexpr std::size_t kMost = 40;
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kExpression:
      return "\"{{\"";
    case TokenKind::kExpressionEnd:
      return "\"}}\"";
    case TokenKind::kTag:
      return "\"{%\"";
    case TokenKind::kTagEnd:
      return "\"%}\"";
    case TokenKind::kString:
      return "the string " + io::quote(token.text, kMost);
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return io::quote(token.text, kMost);
  }
}

}  // namespace

void TokenReader::fail(std::string_view expected) const {
  fail_at(current().line, "expected " + std::string(expected) + ", got " + shown(current()));
}

void TokenReader::fail_at(int line, const std::string& problem) const {
  throw Error(place_of(name_, line) + problem);
}

void TokenReader::expect_operator(std::string_view spelled) {
  if (!skip_operator(spelled)) fail(io::quote(spelled));
}

void TokenReader::expect(TokenKind kind, std::string_view spelled) {
  if (!skip(is_at(kind))) fail(io::quote(spelled));
}

std::string TokenReader::expect_name() {
  if (!is_at(TokenKind::kName)) fail("a name");
  return take().text;
}

bool TokenReader::is_one_of(std::initializer_list<std::string_view> names) const {
  return is_at(TokenKind::kName) && std::ranges::find(names, current().text) != names.end();
}

}  // namespace memlayers::jinja

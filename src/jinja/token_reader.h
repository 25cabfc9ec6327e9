// SPDX-License-Identifier: Apache-2.0
// The tokens of a template, one after the other, and complaints about them.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/lexer.h"

namespace memlayers::jinja {

class TokenReader {
 public:
  TokenReader(const std::string& name, std::string_view source)
      : name_(name), tokens_(tokenize(name, source)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  bool is_at(TokenKind kind) const { return current().kind == kind; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool skip_operator(std::string_view spelled) { return skip(current().is_operator(spelled)); }
  bool skip_name(std::string_view name) { return skip(current().is_name(name)); }
  void expect_operator(std::string_view spelled);
  void expect(TokenKind kind, std::string_view spelled);  // of tags, which have no text
  std::string expect_name();
  bool is_one_of(std::initializer_list<std::string_view> names) const;

  // Throws Error("<name>: line <n>: expected <expected>, got <the current token>").
  [[noreturn]] void fail(std::string_view expected) const;
  [[noreturn]] void fail_at(int line, const std::string& problem) const;

 private:
  bool skip(bool skips) {
    if (skips) take();
    return skips;
  }

  const std::string& name_;
  const std::vector<Token> tokens_;
  std::size_t at_ = 0;
};

}  // namespace memlayers::jinja

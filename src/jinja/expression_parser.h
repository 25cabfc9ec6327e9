// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>
#include <vector>

#include "jinja/expressions.h"
#include "jinja/token_reader.h"

namespace memlayers::jinja {

// Which of its special names a macro's body uses; bodies stand inside bodies.
struct MacroUses {
  bool caller = false, varargs = false, kwargs = false;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenReader& tokens) : tokens_(tokens) {}

  ExpressionPtr expression() { return conditional(); }
  ExpressionPtr without_condition() { return either(); }
  // One expression, or several with commas between: a tuple. `ends`: a name behind it.
  ExpressionPtr tuple_or_one(bool takes_condition, std::string_view ends = {},
                             bool is_in_brackets = false);
  // "|a|b(1)" of a set block; with `starts_inline` as "a|b(1)" of {% filter %}.
  std::vector<std::unique_ptr<const FilterOf>> filters(bool starts_inline);
  Target target(bool takes_members, std::string_view ends = {});
  CallArguments call_arguments();

  std::vector<MacroUses*> macros;  // whose bodies are being read, from outside in

 private:
  class Level;
  template <class Node, class... Parts>
  ExpressionPtr make(int line, Parts&&... parts);

  ExpressionPtr conditional();
  ExpressionPtr either();
  ExpressionPtr both();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr signed_one(bool takes_filters = true);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr with_parts(ExpressionPtr object);
  ExpressionPtr with_filters(ExpressionPtr value);
  ExpressionPtr part_of(ExpressionPtr object);
  ExpressionPtr element_of(ExpressionPtr object, int line);
  ExpressionPtr filter_of(ExpressionPtr value, int line);
  ExpressionPtr test_of(ExpressionPtr value);
  std::string dotted_name();
  Target one_target(bool takes_members);

  TokenReader& tokens_;
  int level_ = 0;
};

}  // namespace memlayers::jinja

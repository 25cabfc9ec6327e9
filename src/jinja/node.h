// SPDX-License-Identifier: Apache-2.0
// A parsed template: a tree that runs itself. Immutable, so several threads may run one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/callable.h"
#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

struct Expression {
  Expression() = default;
  virtual ~Expression() = default;
  Expression(const Expression&) = delete;
  Expression& operator=(const Expression&) = delete;
  virtual Value value(Run& run) const = 0;

  int line = 0;
  int depth = 1;  // of the tree below it
};
using ExpressionPtr = std::unique_ptr<const Expression>;

enum class Flow { kOn, kBreak, kContinue };

struct Statement {
  Statement() = default;
  virtual ~Statement() = default;
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  virtual Flow act(Run& run) const = 0;

  int line = 0;
};
using StatementPtr = std::unique_ptr<const Statement>;
using Body = std::vector<StatementPtr>;

// value() and act() within the run's limits; what goes wrong gets the node's line.
Value evaluate(const Expression& expression, Run& run);
Flow execute(const Statement& statement, Run& run);
Flow execute(const Body& body, Run& run);

// What stands in the brackets of a call.
struct CallArguments {
  std::vector<ExpressionPtr> positional = {};
  std::vector<std::pair<std::string, ExpressionPtr>> named = {};
  ExpressionPtr list = {}, dict = {};  // *list and **dict

  Arguments evaluate(Run& run) const;
  int depth() const;
};

// What is assigned to: `name`, `space.member`, or several of them.
struct Target {
  std::string name = {}, member = {};
  std::vector<Target> parts = {};
  bool is_tuple = false;

  void assign(Run& run, const Value& value) const;
  void check(Run& run) const;  // that what has a member is a namespace
};

// Of a macro or of what stands in {% call %}.
struct Signature {
  std::vector<std::string> names = {};
  std::vector<ExpressionPtr> defaults = {};  // of the last ones
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "jinja/expressions.h"
#include "jinja/node.h"

namespace memlayers::jinja {

struct WriteText : Statement {
  explicit WriteText(const std::string& bytes) : text(bytes, true) {}
  Flow act(Run& run) const override;
  const Text text;
};

struct Show : Statement {
  explicit Show(ExpressionPtr what) : shown(std::move(what)) {}
  Flow act(Run& run) const override;
  const ExpressionPtr shown;
};

struct Set : Statement {
  Set(Target to, ExpressionPtr what) : target(std::move(to)), assigned(std::move(what)) {}
  Flow act(Run& run) const override;
  const Target target;
  const ExpressionPtr assigned;
};

using Filters = std::vector<std::unique_ptr<const FilterOf>>;

// {% set x %}...{% endset %}
struct SetBlock : Statement {
  SetBlock(Target to, Filters with, Body inside)
      : target(std::move(to)), filters(std::move(with)), body(std::move(inside)) {}
  Flow act(Run& run) const override;
  const Target target;
  const Filters filters;
  const Body body;
};

struct FilterBlock : Statement {
  FilterBlock(Filters with, Body inside) : filters(std::move(with)), body(std::move(inside)) {}
  Flow act(Run& run) const override;
  const Filters filters;
  const Body body;
};

struct If : Statement {
  struct Branch {
    ExpressionPtr test;  // absent: else
    Body body;
  };
  explicit If(std::vector<Branch> all) : branches(std::move(all)) {}
  Flow act(Run& run) const override;
  const std::vector<Branch> branches;
};

struct For : Statement {
  For(Target of, ExpressionPtr over, ExpressionPtr condition, Body each, Body none)
      : target(std::move(of)),
        items(std::move(over)),
        test(std::move(condition)),
        body(std::move(each)),
        otherwise(std::move(none)) {}
  Flow act(Run& run) const override;
  const Target target;
  const ExpressionPtr items, test;  // the last may be absent
  const Body body, otherwise;
};

struct Leave : Statement {
  explicit Leave(Flow how) : flow(how) {}
  Flow act(Run&) const override { return flow; }
  const Flow flow;
};

struct With : Statement {
  With(std::vector<std::pair<Target, ExpressionPtr>> set, Body inside)
      : values(std::move(set)), body(std::move(inside)) {}
  Flow act(Run& run) const override;
  const std::vector<std::pair<Target, ExpressionPtr>> values;
  const Body body;
};

// {% generation %}: names that are set inside stay inside.
struct Group : Statement {
  explicit Group(Body inside) : body(std::move(inside)) {}
  Flow act(Run& run) const override;
  const Body body;
};

struct MacroBody {
  std::string name;
  Signature signature;
  Body body;
};

struct DefineMacro : Statement {
  explicit DefineMacro(MacroBody what) : macro(std::move(what)) {}
  Flow act(Run& run) const override;
  const MacroBody macro;
};

// {% call(...) macro(...) %}
struct CallBlock : Statement {
  CallBlock(std::unique_ptr<const CallOf> what, MacroBody with)
      : called(std::move(what)), caller(std::move(with)) {}
  Flow act(Run& run) const override;
  const std::unique_ptr<const CallOf> called;
  const MacroBody caller;
};

}  // namespace memlayers::jinja

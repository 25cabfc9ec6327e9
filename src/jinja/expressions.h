// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "jinja/node.h"
#include "jinja/numbers.h"

namespace memlayers::jinja {

struct Constant : Expression {
  explicit Constant(Value constant) : held(std::move(constant)) {}
  Value value(Run&) const override { return held; }
  const Value held;
};

struct Name : Expression {
  explicit Name(std::string spelled) : name(std::move(spelled)) {}
  Value value(Run& run) const override;
  const std::string name;
};

struct NewSequence : Expression {
  NewSequence(SequenceKind made, std::vector<ExpressionPtr> parts)
      : kind(made), items(std::move(parts)) {}
  Value value(Run& run) const override;
  const SequenceKind kind;
  const std::vector<ExpressionPtr> items;
};

struct NewDict : Expression {
  NewDict(std::vector<ExpressionPtr> names, std::vector<ExpressionPtr> members)
      : keys(std::move(names)), values(std::move(members)) {}
  Value value(Run& run) const override;
  const std::vector<ExpressionPtr> keys, values;
};

struct Binary : Expression {
  Binary(Arithmetic what, ExpressionPtr one, ExpressionPtr other)
      : operation(what), left(std::move(one)), right(std::move(other)) {}
  Value value(Run& run) const override;
  const Arithmetic operation;
  const ExpressionPtr left, right;
};

struct Sign : Expression {
  Sign(bool negates, ExpressionPtr of) : is_negative(negates), operand(std::move(of)) {}
  Value value(Run& run) const override;
  const bool is_negative;
  const ExpressionPtr operand;
};

struct Not : Expression {
  explicit Not(ExpressionPtr of) : operand(std::move(of)) {}
  Value value(Run& run) const override;
  const ExpressionPtr operand;
};

// `and` and `or`, which give one of the two.
struct Either : Expression {
  Either(bool is_or, ExpressionPtr one, ExpressionPtr other)
      : ends_at(is_or), left(std::move(one)), right(std::move(other)) {}
  Value value(Run& run) const override;
  const bool ends_at;  // the truth of `left` at which it is taken
  const ExpressionPtr left, right;
};

enum class Comparison { kEqual, kUnequal, kLess, kAtMost, kGreater, kAtLeast, kIn, kNotIn };

// a < b <= c
struct Compare : Expression {
  Compare(ExpressionPtr one, std::vector<Comparison> how, std::vector<ExpressionPtr> others)
      : first(std::move(one)), comparisons(std::move(how)), rest(std::move(others)) {}
  Value value(Run& run) const override;
  const ExpressionPtr first;
  const std::vector<Comparison> comparisons;
  const std::vector<ExpressionPtr> rest;
};

struct Concat : Expression {
  explicit Concat(std::vector<ExpressionPtr> all) : parts(std::move(all)) {}
  Value value(Run& run) const override;
  const std::vector<ExpressionPtr> parts;
};

struct Conditional : Expression {
  Conditional(ExpressionPtr condition, ExpressionPtr yes, ExpressionPtr no)
      : test(std::move(condition)), then(std::move(yes)), otherwise(std::move(no)) {}
  Value value(Run& run) const override;
  const ExpressionPtr test, then, otherwise;  // the last may be absent
};

struct AttributeOf : Expression {
  AttributeOf(ExpressionPtr of, std::string named)
      : object(std::move(of)), name(std::move(named)) {}
  Value value(Run& run) const override;
  const ExpressionPtr object;
  const std::string name;
};

struct ElementOf : Expression {
  ElementOf(ExpressionPtr of, ExpressionPtr at) : object(std::move(of)), key(std::move(at)) {}
  Value value(Run& run) const override;
  const ExpressionPtr object, key;
};

struct SliceOf : Expression {
  SliceOf(ExpressionPtr of, ExpressionPtr from, ExpressionPtr to, ExpressionPtr by)
      : object(std::move(of)), start(std::move(from)), stop(std::move(to)), step(std::move(by)) {}
  Value value(Run& run) const override;
  const ExpressionPtr object, start, stop, step;  // all but the first may be absent
};

struct CallOf : Expression {
  CallOf(ExpressionPtr what, CallArguments with)
      : callee(std::move(what)), arguments(std::move(with)) {}
  Value value(Run& run) const override { return call(run, std::nullopt); }
  Value call(Run& run, const std::optional<Value>& caller) const;
  const ExpressionPtr callee;
  const CallArguments arguments;
};

struct FilterOf : Expression {
  FilterOf(ExpressionPtr what, std::string named, CallArguments with)
      : subject(std::move(what)), name(std::move(named)), arguments(std::move(with)) {}
  Value value(Run& run) const override;
  Value apply(Run& run, const Value& to) const;
  const ExpressionPtr subject;  // absent where a filter stands before a block
  const std::string name;
  const CallArguments arguments;
};

struct TestOf : Expression {
  TestOf(ExpressionPtr what, std::string named, CallArguments with)
      : subject(std::move(what)), name(std::move(named)), arguments(std::move(with)) {}
  Value value(Run& run) const override;
  const ExpressionPtr subject;
  const std::string name;
  const CallArguments arguments;
};

}  // namespace memlayers::jinja

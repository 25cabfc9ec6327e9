// SPDX-License-Identifier: Apache-2.0
#include "jinja/expressions.h"

#include <algorithm>

#include "io/shown.h"
#include "jinja/filters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {

Arguments CallArguments::evaluate(Run& run) const {
  Arguments arguments;
  for (const auto& argument : positional) {
    arguments.positional.push_back(jinja::evaluate(*argument, run));
  }
  if (list != nullptr) {
    const Items more = items_of(run, jinja::evaluate(*list, run));
    arguments.positional.insert(arguments.positional.end(), more.begin(), more.end());
  }
  for (const auto& [name, argument] : named) {
    arguments.named.emplace_back(Text(name, true), jinja::evaluate(*argument, run));
  }
  if (dict == nullptr) return arguments;
  const Value more = jinja::evaluate(*dict, run);
  if (more.dict() == nullptr) {
    throw Problem("expected a dict behind **, got " + std::string(more.kind()));
  }
  for (const auto& [key, value] : more.dict()->entries()) {
    if (key.text() == nullptr) {
      throw Problem("expected names as keys behind **, got " + std::string(key.kind()));
    }
    const bool is_known = std::ranges::any_of(arguments.named, [&](const auto& argument) {
      return argument.first.bytes() == key.text()->bytes();
    });
    if (is_known) throw Problem("expected each argument once, got one twice");
    run.budget.spend(arguments.named.size());
    arguments.named.emplace_back(*key.text(), value);
  }
  return arguments;
}

int CallArguments::depth() const {
  int most = std::max(list != nullptr ? list->depth : 0, dict != nullptr ? dict->depth : 0);
  for (const auto& argument : positional) most = std::max(most, argument->depth);
  for (const auto& [name, argument] : named) most = std::max(most, argument->depth);
  return most;
}

Value Name::value(Run& run) const {
  if (const Value* found = run.scope->find(name)) return *found;
  if (const Value* function = global_function(name)) return *function;
  return Value::undefined(io::quote(name) + " is undefined");
}

Value NewSequence::value(Run& run) const {
  Items made;
  for (const auto& item : items) made.push_back(evaluate(*item, run));
  return make_sequence(kind, std::move(made));
}

Value NewDict::value(Run& run) const {
  Dict dict;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    Value key = evaluate(*keys[i], run);
    dict.set(std::move(key), evaluate(*values[i], run));
  }
  return make_dict(std::move(dict));
}

Value Binary::value(Run& run) const {
  const Value one = evaluate(*left, run);
  return apply(run, operation, one, evaluate(*right, run));
}

Value Sign::value(Run& run) const {
  const Value of = evaluate(*operand, run);
  if (of.is_undefined()) throw Problem(of.why_undefined());
  if (!of.is_number()) throw Problem("expected a number, got " + std::string(of.kind()));
  if (is_negative) return negated(of);
  return of.real() != nullptr ? of : Value(to_integer(of).value_or(0));
}

Value Not::value(Run& run) const { return Value(!is_true(evaluate(*operand, run))); }

Value Either::value(Run& run) const {
  Value one = evaluate(*left, run);
  return is_true(one) == ends_at ? one : evaluate(*right, run);
}

static bool compare(Run& run, Comparison how, const Value& a, const Value& b) {
  switch (how) {
    case Comparison::kEqual:
      return is_equal(run, a, b);
    case Comparison::kUnequal:
      return !is_equal(run, a, b);
    case Comparison::kLess:
      return is_less(run, a, b);
    case Comparison::kAtMost:
      return is_less(run, a, b) || is_equal(run, a, b);
    case Comparison::kGreater:
      return is_less(run, b, a);
    case Comparison::kAtLeast:
      return is_less(run, b, a) || is_equal(run, a, b);
    case Comparison::kIn:
      return is_in(run, a, b);
    case Comparison::kNotIn:
      break;
  }
  return !is_in(run, a, b);
}

Value Compare::value(Run& run) const {
  Value left = evaluate(*first, run);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    Value right = evaluate(*rest[i], run);
    if (!compare(run, comparisons[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Concat::value(Run& run) const {
  Text text;
  for (const auto& part : parts) {
    const Text next = str_of(run, evaluate(*part, run));
    run.budget.spend_text(next.size(), text.size());
    text.append(next);
  }
  return Value(std::move(text));
}

Value Conditional::value(Run& run) const {
  if (is_true(evaluate(*test, run))) return evaluate(*then, run);
  if (otherwise != nullptr) return evaluate(*otherwise, run);
  return Value::undefined("an inline if had no else");
}

Value AttributeOf::value(Run& run) const { return attribute(run, evaluate(*object, run), name); }

Value ElementOf::value(Run& run) const {
  const Value of = evaluate(*object, run);
  return subscript(run, of, evaluate(*key, run));
}

Value SliceOf::value(Run& run) const {
  const auto bound = [&](const ExpressionPtr& part) {
    return part == nullptr ? Value(None{}) : evaluate(*part, run);
  };
  const Value of = evaluate(*object, run), from = bound(start), to = bound(stop);
  return sliced(run, of, from, to, bound(step));
}

Value CallOf::call(Run& run, const std::optional<Value>& caller) const {
  const Value what = evaluate(*callee, run);
  Arguments with = arguments.evaluate(run);
  if (caller) with.named.emplace_back(Text("caller", true), *caller);
  if (what.is_undefined()) throw Problem(what.why_undefined());
  if (what.callable() == nullptr) {
    throw Problem("expected something to call, got " + std::string(what.kind()));
  }
  return what.callable()->call(run, with);
}

Value FilterOf::value(Run& run) const { return apply(run, evaluate(*subject, run)); }

Value FilterOf::apply(Run& run, const Value& to) const {
  // Filters before a block stand in a chain.
  return apply_filter(run, name, to, arguments.evaluate(run));
}

Value TestOf::value(Run& run) const {
  const Value what = evaluate(*subject, run);
  return Value(apply_test(run, name, what, arguments.evaluate(run)));
}

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
#include "jinja/methods.h"

#include <algorithm>
#include <array>

#include "io/shown.h"
#include "jinja/operators.h"
#include "jinja/text_methods.h"

namespace memlayers::jinja {
namespace {

Value of_dict_get(Run&, const Value& self, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 2> kNames{"key", "default"};
  if (!arguments.named.empty()) throw Problem("get: expected no named arguments, got one");
  const Bound bound("get", arguments, kNames);
  if (!is_hashable(bound.at(0))) {
    throw Problem("get: expected a key that never changes, got " + std::string(bound.at(0).kind()));
  }
  if (const Value* found = self.dict()->find(bound.at(0))) return *found;
  return bound.find(1) != nullptr ? *bound.find(1) : Value(None{});
}

void expect_none(std::string_view name, const Arguments& arguments) {
  if (!arguments.empty()) throw Problem(std::string(name) + ": expected no arguments, got some");
}

Value of_dict_items(Run& run, const Value& self, const Arguments& arguments) {
  expect_none("items", arguments);
  Items items;
  run.budget.spend(2 * self.dict()->entries().size());
  for (const auto& [key, value] : self.dict()->entries()) items.push_back(make_tuple({key, value}));
  return make_sequence(SequenceKind::kPairs, std::move(items));
}

Value of_dict_keys(Run& run, const Value& self, const Arguments& arguments) {
  expect_none("keys", arguments);
  return make_sequence(SequenceKind::kKeys, items_of(run, self));
}

Value of_dict_values(Run& run, const Value& self, const Arguments& arguments) {
  expect_none("values", arguments);
  Items items;
  run.budget.spend(self.dict()->entries().size());
  for (const auto& [key, value] : self.dict()->entries()) items.push_back(value);
  return make_sequence(SequenceKind::kValues, std::move(items));
}

Value of_any_copy(Run&, const Value& self, const Arguments& arguments) {
  expect_none("copy", arguments);
  return self;
}

Value of_list_count(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"value"};
  const Bound bound("count", arguments, kNames);
  return Value(static_cast<std::int64_t>(
      std::ranges::count_if(self.sequence()->items,
                            [&](const Value& item) { return is_equal(run, item, bound.at(0)); })));
}

Value of_list_index(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"value"};
  const Bound bound("index", arguments, kNames);
  const Items& items = self.sequence()->items;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (is_equal(run, items[i], bound.at(0))) return Value(i);
  }
  throw Problem("index: expected a value that the list has, got another one");
}

constexpr std::array kDictMethods{Method{"get", of_dict_get}, Method{"items", of_dict_items},
                                  Method{"keys", of_dict_keys}, Method{"values", of_dict_values},
                                  Method{"copy", of_any_copy}};
constexpr std::array kListMethods{Method{"count", of_list_count}, Method{"index", of_list_index},
                                  Method{"copy", of_any_copy}};
constexpr std::array kTupleMethods{Method{"count", of_list_count}, Method{"index", of_list_index}};

using Names = std::span<const std::string_view>;
constexpr std::array<std::string_view, 5> kDictChanges{"clear", "pop", "popitem", "setdefault",
                                                       "update"};
constexpr std::array<std::string_view, 8> kListChanges{"append", "clear",  "extend",  "insert",
                                                       "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 1> kOtherOfDict{"fromkeys"};
constexpr std::array<std::string_view, 10> kOtherOfText{
    "casefold",    "encode",  "expandtabs", "format_map", "isidentifier",
    "isprintable", "istitle", "maketrans",  "translate",  "isascii"};
constexpr std::array<std::string_view, 12> kOtherOfNumber{
    "as_integer_ratio", "bit_count", "bit_length", "conjugate",  "denominator", "from_bytes",
    "fromhex",          "hex",       "imag",       "is_integer", "numerator",   "real"};

bool has(Names names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

class BoundMethod : public Callable {
 public:
  BoundMethod(Value self, const Method& method) : self_(std::move(self)), method_(method) {}
  std::string_view kind() const override { return "a method"; }
  Value call(Run& run, const Arguments& arguments) const override {
    return method_.run(run, self_, arguments);
  }

 private:
  const Value self_;
  const Method method_;
};

}  // namespace

std::optional<Value> method_of(const Value& value, std::string_view name) {
  std::span<const Method> methods;
  Names changes, others;
  if (value.text() != nullptr) {
    methods = text_methods();
    others = kOtherOfText;
  } else if (value.dict() != nullptr) {
    methods = kDictMethods;
    changes = kDictChanges;
    others = kOtherOfDict;
  } else if (value.is_list()) {
    methods = kListMethods;
    changes = kListChanges;
  } else if (value.is_tuple() ||
             (value.sequence() != nullptr && value.sequence()->kind == SequenceKind::kRange)) {
    methods = kTupleMethods;
  } else if (value.is_number()) {
    others = kOtherOfNumber;
  }
  const auto found = std::ranges::find(methods, name, &Method::name);
  if (found != methods.end()) {
    return Value(std::shared_ptr<const Callable>(std::make_shared<BoundMethod>(value, *found)));
  }
  if (has(changes, name)) {
    return Value::undefined(io::quote(name) + " would change " + std::string(value.kind()) +
                            ", which a template must not");
  }
  if (has(others, name)) {
    throw Problem("the attribute " + io::quote(name) + " of " + std::string(value.kind()) +
                  " is none of those that we have");
  }
  return std::nullopt;
}

}  // namespace memlayers::jinja

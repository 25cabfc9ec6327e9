// SPDX-License-Identifier: Apache-2.0
// What `is` asks.
#include <algorithm>
#include <array>

#include "io/shown.h"
#include "jinja/filters.h"
#include "jinja/operators.h"
#include "jinja/split.h"

namespace memlayers::jinja {
namespace {

using Is = bool (*)(Run& run, const Value& value, const Items& arguments);

struct Test {
  std::string_view name;
  std::size_t arguments;
  Is is;
};

bool is_whole_modulo(const Value& value, const Value& divisor, Run& run, std::int64_t rest) {
  return is_equal(run, apply(run, Arithmetic::kModulo, value, divisor), Value(rest));
}

bool equals(Run& run, const Value& value, const Items& arguments) {
  return is_equal(run, value, arguments[0]);
}
bool differs(Run& run, const Value& value, const Items& arguments) {
  return !is_equal(run, value, arguments[0]);
}
bool is_greater(Run& run, const Value& value, const Items& arguments) {
  return is_less(run, arguments[0], value);
}
bool is_smaller(Run& run, const Value& value, const Items& arguments) {
  return is_less(run, value, arguments[0]);
}
bool is_at_least(Run& run, const Value& value, const Items& arguments) {
  return is_less(run, arguments[0], value) || is_equal(run, value, arguments[0]);
}
bool is_at_most(Run& run, const Value& value, const Items& arguments) {
  return is_less(run, value, arguments[0]) || is_equal(run, value, arguments[0]);
}

template <bool kTruth>
bool is_exactly(Run&, const Value& value, const Items&) {
  return value.boolean() != nullptr && *value.boolean() == kTruth;
}

template <bool kUpper>
bool is_of_case(Run& run, const Value& value, const Items&) {
  return is_all_of_case(str_of(run, value).bytes(), kUpper);
}

bool is_sequence(Run&, const Value& value, const Items&) {
  const Sequence* sequence = value.sequence();
  return value.is_undefined() || value.text() != nullptr || value.dict() != nullptr ||
         (sequence != nullptr &&
          (value.is_list() || value.is_tuple() || sequence->kind == SequenceKind::kRange));
}

constexpr std::array kTests{
    Test{"defined", 0, [](Run&, const Value& v, const Items&) { return !v.is_undefined(); }},
    Test{"undefined", 0, [](Run&, const Value& v, const Items&) { return v.is_undefined(); }},
    Test{"none", 0, [](Run&, const Value& v, const Items&) { return v.is_none(); }},
    Test{"string", 0, [](Run&, const Value& v, const Items&) { return v.text() != nullptr; }},
    Test{"mapping", 0, [](Run&, const Value& v, const Items&) { return v.dict() != nullptr; }},
    Test{"number", 0, [](Run&, const Value& v, const Items&) { return v.is_number(); }},
    Test{"integer", 0, [](Run&, const Value& v, const Items&) { return v.integer() != nullptr; }},
    Test{"float", 0, [](Run&, const Value& v, const Items&) { return v.real() != nullptr; }},
    Test{"boolean", 0, [](Run&, const Value& v, const Items&) { return v.boolean() != nullptr; }},
    Test{"iterable", 0, [](Run&, const Value& v, const Items&) { return is_iterable(v); }},
    Test{"callable", 0,
         [](Run&, const Value& v, const Items&) {
           return v.callable() != nullptr || v.loop() != nullptr || v.is_undefined();
         }},
    Test{"escaped", 0,
         [](Run&, const Value& v, const Items&) {
           return v.text() != nullptr && v.text()->is_safe;
         }},
    Test{"sequence", 0, is_sequence},
    Test{"true", 0, is_exactly<true>},
    Test{"false", 0, is_exactly<false>},
    Test{"lower", 0, is_of_case<false>},
    Test{"upper", 0, is_of_case<true>},
    Test{"odd", 0,
         [](Run& run, const Value& v, const Items&) {
           return is_whole_modulo(v, Value(std::int64_t{2}), run, 1);
         }},
    Test{"even", 0,
         [](Run& run, const Value& v, const Items&) {
           return is_whole_modulo(v, Value(std::int64_t{2}), run, 0);
         }},
    Test{"divisibleby", 1,
         [](Run& run, const Value& v, const Items& a) { return is_whole_modulo(v, a[0], run, 0); }},
    Test{"sameas", 1, [](Run&, const Value& v, const Items& a) { return v.is_same(a[0]); }},
    Test{"in", 1, [](Run& run, const Value& v, const Items& a) { return is_in(run, v, a[0]); }},
    Test{"filter", 0,
         [](Run&, const Value& v, const Items&) {
           return v.text() != nullptr && has_filter(v.text()->bytes());
         }},
    Test{"test", 0,
         [](Run&, const Value& v, const Items&) {
           return v.text() != nullptr && has_test(v.text()->bytes());
         }},
    Test{"eq", 1, equals},
    Test{"==", 1, equals},
    Test{"equalto", 1, equals},
    Test{"ne", 1, differs},
    Test{"!=", 1, differs},
    Test{"gt", 1, is_greater},
    Test{">", 1, is_greater},
    Test{"greaterthan", 1, is_greater},
    Test{"ge", 1, is_at_least},
    Test{">=", 1, is_at_least},
    Test{"lt", 1, is_smaller},
    Test{"<", 1, is_smaller},
    Test{"lessthan", 1, is_smaller},
    Test{"le", 1, is_at_most},
    Test{"<=", 1, is_at_most}};

}  // namespace

bool has_test(std::string_view name) {
  return std::ranges::find(kTests, name, &Test::name) != kTests.end();
}

bool apply_test(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  const auto test = std::ranges::find(kTests, name, &Test::name);
  if (test == kTests.end()) throw Problem("unknown test " + io::quote(name));
  if (!arguments.named.empty() || arguments.positional.size() != test->arguments) {
    throw Problem("test " + io::quote(name) + ": expected " + std::to_string(test->arguments) +
                  " arguments, got " +
                  std::to_string(arguments.positional.size() + arguments.named.size()));
  }
  return test->is(run, value, arguments.positional);
}

}  // namespace memlayers::jinja

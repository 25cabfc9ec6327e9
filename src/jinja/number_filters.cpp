// SPDX-License-Identifier: Apache-2.0
// Filters of numbers.
#include <array>
#include <cmath>

#include "jinja/filters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

using Names2 = std::array<std::string_view, 2>;

[[noreturn]] void fail_number(std::string_view filter, const Value& value) {
  if (value.is_undefined()) throw Problem(value.why_undefined());
  throw Problem(std::string(filter) + ": expected a number, got " + std::string(value.kind()));
}

Value absolute(Run&, const Value& value, const Arguments&) {
  if (!value.is_number()) fail_number("abs", value);
  if (value.real() != nullptr) return Value(std::abs(*value.real()));
  const std::int64_t whole = to_integer(value).value_or(0);
  return whole < 0 ? negated(Value(whole)) : Value(whole);
}

Value as_integer(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"default", "base"};
  const Bound bound("int", arguments, kNames);
  if (value.is_undefined()) throw Problem(value.why_undefined());
  const auto of_real = [](double real) -> std::optional<std::int64_t> {
    if (!std::isfinite(real)) return std::nullopt;
    const auto whole = truncated(real);
    if (!whole) throw Problem("int: expected an integer that 64 bits hold, got a greater one");
    return whole;
  };
  std::optional<std::int64_t> whole;
  if (const Text* text = value.text()) {
    run.budget.spend(text->size());
    whole = read_integer(text->bytes(), static_cast<int>(bound.integer(1, 10)));
    if (!whole) {
      if (const auto real = read_real(text->bytes())) whole = of_real(*real);
    }
  } else if (value.real() != nullptr) {
    whole = of_real(*value.real());
  } else {
    whole = to_integer(value);
  }
  if (whole) return Value(*whole);
  return bound.find(0) != nullptr ? *bound.find(0) : Value(std::int64_t{0});
}

Value as_real(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"default"};
  const Bound bound("float", arguments, kNames);
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (value.is_number()) return Value(to_real(value));
  if (const Text* text = value.text()) {
    run.budget.spend(text->size());
    if (const auto real = read_real(text->bytes())) return Value(*real);
  }
  return bound.find(0) != nullptr ? *bound.find(0) : Value(0.0);
}

Value round(Run&, const Value& value, const Arguments& arguments) {
  static constexpr Names2 kNames{"precision", "method"};
  const Bound bound("round", arguments, kNames);
  if (!value.is_number()) fail_number("round", value);
  const std::string method = bound.find(1) != nullptr ? bound.text(1).bytes() : "common";
  const std::int64_t digits = bound.integer(0, 0);
  if (method == "common") {
    if (value.real() != nullptr) return Value(rounded(*value.real(), digits));
    if (digits >= 0) return Value(to_integer(value).value_or(0));
    return Value(static_cast<std::int64_t>(rounded(to_real(value), digits)));
  }
  if (method != "ceil" && method != "floor") {
    throw Problem("round: method: expected common, ceil or floor, got another one");
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double whole = to_real(value) * scale;
  return Value((method == "ceil" ? std::ceil(whole) : std::floor(whole)) / scale);
}

constexpr std::array kFilters{Filter{"abs", absolute}, Filter{"int", as_integer},
                              Filter{"float", as_real}, Filter{"round", round}};

}  // namespace

std::span<const Filter> number_filters() { return kFilters; }

}  // namespace memlayers::jinja

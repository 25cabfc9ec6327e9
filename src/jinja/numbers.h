// SPDX-License-Identifier: Apache-2.0
// Python's numbers, as far as 64 bits hold them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "jinja/value.h"

namespace memlayers::jinja {

// Of bools, integers and floats: -1, 0, 1, or none where one is no number (NaN).
std::optional<int> compare_numbers(const Value& a, const Value& b);
double to_real(const Value& number);
// Of a bool or an integer.
std::optional<std::int64_t> to_integer(const Value& value);

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
// Throws Problem for a division by zero, and where an integer needs more than 64 bits.
Value calculate(Arithmetic operation, const Value& a, const Value& b);
Value negated(const Value& number);

// As repr() writes it: "1.0", "1e-05", "inf".
std::string real_text(double value);
// As int(text, base) and float(text) read it.
std::optional<std::int64_t> read_integer(std::string_view text, int base);
std::optional<double> read_real(std::string_view text);
// Towards zero, as int() does it; none where 64 bits do not hold it.
std::optional<std::int64_t> truncated(double value);
// round(value, digits) to the nearest, of two to the even one.
double rounded(double value, std::int64_t digits);

}  // namespace memlayers::jinja

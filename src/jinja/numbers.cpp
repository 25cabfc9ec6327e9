// SPDX-License-Identifier: Apache-2.0
#include "jinja/numbers.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "jinja/characters.h"
#include "jinja/limits.h"

namespace memlayers::jinja {
namespace {

[[noreturn]] void fail_size() {
  throw Problem("expected integers that 64 bits hold, got a greater one");
}

// Of what is known to be one.
std::int64_t integer_of(const Value& value) { return to_integer(value).value_or(0); }

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1) {
    std::int64_t result = 0;
    if (__builtin_sub_overflow(std::int64_t{0}, a, &result)) fail_size();
    return result;
  }
  const std::int64_t quotient = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? quotient - 1 : quotient;
}

std::int64_t power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_size();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_size();
  }
  return result;
}

Value whole(Arithmetic operation, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  switch (operation) {
    case Arithmetic::kAdd:
      if (__builtin_add_overflow(a, b, &result)) fail_size();
      return Value(result);
    case Arithmetic::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) fail_size();
      return Value(result);
    case Arithmetic::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) fail_size();
      return Value(result);
    case Arithmetic::kFloorDivide:
      return Value(floor_divide(a, b));
    case Arithmetic::kModulo:
      return Value(b == -1 ? 0 : a - floor_divide(a, b) * b);
    case Arithmetic::kPower:
      return Value(power(a, b));
    case Arithmetic::kDivide:
      break;
  }
  return Value(static_cast<double>(a) / static_cast<double>(b));
}

// Python's: the remainder has the sign of the divisor.
double real_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b;
    return rest;
  }
  return std::copysign(0.0, b);
}

double real_floor_divide(double a, double b) {
  const double quotient = (a - real_modulo(a, b)) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value real(Arithmetic operation, double a, double b) {
  switch (operation) {
    case Arithmetic::kAdd:
      return Value(a + b);
    case Arithmetic::kSubtract:
      return Value(a - b);
    case Arithmetic::kMultiply:
      return Value(a * b);
    case Arithmetic::kDivide:
      return Value(a / b);
    case Arithmetic::kFloorDivide:
      return Value(real_floor_divide(a, b));
    case Arithmetic::kModulo:
      return Value(real_modulo(a, b));
    case Arithmetic::kPower:
      break;
  }
  if (a < 0 && b != std::floor(b)) {
    throw Problem("expected a whole power of a negative number, got a fraction");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
    throw Problem("expected a power that a float holds, got a greater one");
  }
  return Value(result);
}

}  // namespace

double to_real(const Value& number) {
  if (number.real() != nullptr) return *number.real();
  return static_cast<double>(integer_of(number));
}

std::optional<std::int64_t> to_integer(const Value& value) {
  if (value.boolean() != nullptr) return *value.boolean() ? 1 : 0;
  if (value.integer() != nullptr) return *value.integer();
  return std::nullopt;
}

std::optional<int> compare_numbers(const Value& a, const Value& b) {
  const auto order = [](auto x, auto y) { return x < y ? -1 : (y < x ? 1 : 0); };
  const auto i = to_integer(a), j = to_integer(b);
  if (i && j) return order(*i, *j);
  const double x = to_real(a), y = to_real(b);
  if (std::isnan(x) || std::isnan(y)) return std::nullopt;
  // A double of whole numbers past 2^53 has neighbours that are integers, so those are compared.
  constexpr double kEnd = 9223372036854775808.0;  // 2^63
  if (i && std::abs(y) < kEnd && std::abs(y) >= 9007199254740992.0) {
    return order(*i, static_cast<std::int64_t>(y));
  }
  if (j && std::abs(x) < kEnd && std::abs(x) >= 9007199254740992.0) {
    return order(static_cast<std::int64_t>(x), *j);
  }
  return order(x, y);
}

Value calculate(Arithmetic operation, const Value& a, const Value& b) {
  const auto i = to_integer(a), j = to_integer(b);
  const bool divides = operation == Arithmetic::kDivide || operation == Arithmetic::kFloorDivide ||
                       operation == Arithmetic::kModulo;
  if (divides && to_real(b) == 0) throw Problem("expected a divisor, got zero");
  if (operation == Arithmetic::kPower && to_real(a) == 0 && to_real(b) < 0) {
    throw Problem("expected a divisor, got zero to a negative power");
  }
  if (i && j && !(operation == Arithmetic::kPower && *j < 0)) return whole(operation, *i, *j);
  return real(operation, to_real(a), to_real(b));
}

Value negated(const Value& number) {
  if (number.real() != nullptr) return Value(-*number.real());
  return calculate(Arithmetic::kSubtract, Value(std::int64_t{0}), number);
}

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer;
  const char* end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                  std::chars_format::scientific)
                        .ptr;
  const std::string_view all(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = all.find('e');
  int exponent = 0;
  std::string_view power = all.substr(e + 1);
  if (power.starts_with('+')) power.remove_prefix(1);
  std::from_chars(power.data(), power.data() + power.size(), exponent);
  // repr() writes an exponent below 1e-4 and from 1e16 on.
  if (exponent < -4 || exponent >= 16) {
    std::string text(all.substr(0, e));
    const std::string digits = std::to_string(std::abs(exponent));
    return text + (exponent < 0 ? "e-" : "e+") + (digits.size() < 2 ? "0" : "") + digits;
  }
  end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed)
            .ptr;
  std::string text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

// Digits with single underscores between them.
static std::optional<std::string> plain_digits(std::string_view text) {
  std::string digits;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      digits += text[i];
    } else if (i == 0 || i + 1 == text.size() || text[i + 1] == '_' || digits.empty()) {
      return std::nullopt;
    }
  }
  return digits;
}

std::optional<std::int64_t> read_integer(std::string_view text, int base) {
  text = stripped(text);
  std::string sign;
  if (text.starts_with('-') || text.starts_with('+')) {
    if (text[0] == '-') sign = "-";
    text.remove_prefix(1);
  }
  const auto has_prefix = [&](char letter) {
    return text.size() > 1 && text[0] == '0' && (text[1] | 0x20) == letter;
  };
  const int named = has_prefix('x') ? 16 : has_prefix('o') ? 8 : has_prefix('b') ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
    base = named;
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) return {};
    base = 10;
  }
  if (base < 2 || base > 36) throw Problem("expected a base from 2 to 36, got another one");
  const auto digits = plain_digits(text);
  if (!digits || digits->empty() || digits->front() == '-') return std::nullopt;
  const std::string whole = sign + *digits;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), value, base);
  if (end != whole.data() + whole.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) fail_size();
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::optional<double> read_real(std::string_view text) {
  text = stripped(text);
  const bool is_negative = text.starts_with('-');
  if (is_negative || text.starts_with('+')) text.remove_prefix(1);
  if (text.empty() || text[0] == '-' || text[0] == '+') return std::nullopt;
  const auto digits = plain_digits(text);
  if (!digits) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), value);
  if (end != digits->data() + digits->size() || error == std::errc::invalid_argument) {
    return std::nullopt;
  }
  if (error == std::errc::result_out_of_range) {
    const bool is_small = digits->find("e-") != digits->npos || digits->find("E-") != digits->npos;
    value = is_small ? 0.0 : HUGE_VAL;
  }
  return is_negative ? -value : value;
}

std::optional<std::int64_t> truncated(double value) {
  constexpr double kEnd = 9223372036854775808.0;  // 2^63
  if (!(value > -kEnd && value < kEnd)) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

double rounded(double value, std::int64_t digits) {
  constexpr std::int64_t kMostDigits = 323;  // of a double
  if (!std::isfinite(value) || digits > kMostDigits) return value;
  if (digits < -309) return std::copysign(0.0, value);
  if (digits < 0) {
    const double step = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / step) * step;
  }
  // The printed number is the nearest of the true value, which is what Python's round() goes by.
  std::string text(kMostDigits * 3, '\0');
  const int size = std::snprintf(text.data(), text.size(), "%.*f", static_cast<int>(digits), value);
  double result = 0;
  std::from_chars(text.data(), text.data() + size, result);
  return result;
}

}  // namespace memlayers::jinja

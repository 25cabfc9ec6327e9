// SPDX-License-Identifier: Apache-2.0
// One value of a pattern.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "io/shown.h"
#include "jinja/characters.h"
#include "jinja/format.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

constexpr int kMostPrecision = 300;

[[noreturn]] void fail_type(const Layout& layout, const Value& value) {
  throw Problem("expected a value that format " + io::quote(std::string_view(&layout.type, 1)) +
                " writes, got " + std::string(value.kind()));
}

std::string digits_of(std::uint64_t magnitude, int base) {
  std::array<char, 65> buffer;
  return {buffer.data(),
          std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude, base).ptr};
}

// Groups of three digits before a point.
void group(std::string& digits) {
  std::size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  while (end > 3) digits.insert(end -= 3, 1, ',');
}

std::string integer_text(std::int64_t value, const Layout& layout) {
  const std::uint64_t magnitude =
      value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  std::string digits, prefix;
  switch (layout.type) {
    case 'x':
    case 'X':
      digits = digits_of(magnitude, 16);
      prefix = layout.type == 'x' ? "0x" : "0X";
      if (layout.type == 'X') std::ranges::transform(digits, digits.begin(), ::toupper);
      break;
    case 'o':
      digits = digits_of(magnitude, 8);
      prefix = "0o";
      break;
    case 'b':
      digits = digits_of(magnitude, 2);
      prefix = "0b";
      break;
    default:
      digits = digits_of(magnitude, 10);
  }
  return layout.is_alternate ? prefix + digits : digits;
}

std::string real_digits(double magnitude, const Layout& layout) {
  const bool is_percent = layout.type == '%';
  const char type = is_percent ? 'f' : layout.type;
  const std::string pattern =
      std::string(layout.is_alternate ? "%#.*" : "%.*") + (type == 'F' ? 'f' : type);
  std::array<char, 700> buffer;
  const int size =
      std::snprintf(buffer.data(), buffer.size(), pattern.c_str(), layout.precision.value_or(6),
                    is_percent ? magnitude * 100 : magnitude);
  return std::string(buffer.data(), static_cast<std::size_t>(size)) + (is_percent ? "%" : "");
}

Text padded(Run& run, const Text& text, const std::string& sign, const Layout& layout, char usual) {
  const std::size_t count = count_characters(text.bytes()) + sign.size();
  const std::size_t missing = layout.width > count ? layout.width - count : 0;
  run.budget.spend_text(missing * layout.fill.size() + text.size());
  const char align = layout.align != 0 ? layout.align : usual;
  const std::size_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  Text result;
  const auto fill = [&](std::size_t times) {
    for (std::size_t i = 0; i < times; ++i) result.append(layout.fill, true);
  };
  if (align == '=') result.append(sign, true);
  fill(before);
  if (align != '=') result.append(sign, true);
  result.append(text);
  fill(missing - before);
  return result;
}

bool is_real_type(char type) {
  return std::string_view("eEfFgG%").find(type) != std::string_view::npos;
}

Text number(Run& run, const Value& value, const Layout& layout) {
  const auto whole = to_integer(value);
  const bool is_real = is_real_type(layout.type) && layout.type != 0;
  const double real = to_real(value);
  const bool is_negative = whole && !is_real ? *whole < 0 : std::signbit(real);
  std::string digits;
  if (is_real && layout.precision.value_or(0) > kMostPrecision) {
    throw Problem("expected a precision of at most " + std::to_string(kMostPrecision) +
                  ", got more");
  }
  if (is_real) {
    digits = real_digits(std::abs(real), layout);
  } else if (whole) {
    digits = integer_text(*whole, layout);
  } else if (layout.type == 0 && !layout.precision) {
    digits = real_text(std::abs(real));
  } else {
    fail_type(layout, value);
  }
  if (layout.groups) group(digits);
  const std::string sign = is_negative          ? "-"
                           : layout.sign == '-' ? ""
                                                : std::string(1, layout.sign);
  Layout zeros = layout;
  if (layout.is_zero_filled && layout.align == 0) {
    zeros.fill = "0";
    zeros.align = '=';
  }
  return padded(run, Text(digits, true), sign, zeros, '>');
}

}  // namespace

Text laid_out(Run& run, const Value& value, const Layout& layout) {
  const bool is_text_type = layout.type == 0 || layout.type == 's';
  if (value.is_number() && layout.type != 's' &&
      !(value.boolean() != nullptr && layout.type == 0)) {
    return number(run, value, layout);
  }
  if (!is_text_type) fail_type(layout, value);
  Text text = str_of(run, value);
  if (layout.precision) {
    text = text.part(0, byte_of(text.bytes(), static_cast<std::size_t>(*layout.precision)));
  }
  return padded(run, text, "", layout, '<');
}

}  // namespace memlayers::jinja

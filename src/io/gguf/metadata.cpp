// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/metadata.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "io/mapped_read.h"
#include "io/shown.h"
#include "io/utf8.h"
#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

struct ValueTypeInfo {
  std::string_view name;
  std::size_t bytes;
};
constexpr std::array<ValueTypeInfo, 13> kValueTypes{{{"uint8", 1},
                                                     {"int8", 1},
                                                     {"uint16", 2},
                                                     {"int16", 2},
                                                     {"uint32", 4},
                                                     {"int32", 4},
                                                     {"float32", 4},
                                                     {"bool", 1},
                                                     {"string", 0},
                                                     {"array", 0},
                                                     {"uint64", 8},
                                                     {"int64", 8},
                                                     {"float64", 8}}};

bool is_integer(ValueType type) {
  return type != ValueType::kF32 && type != ValueType::kF64 && type != ValueType::kBool &&
         value_bytes(type) > 0;
}

template <class Number>
Number mapped_number(std::span<const std::byte> bytes, std::size_t index = 0) {
  Number number{};
  copy_mapped(&number, bytes.subspan(index * sizeof(Number), sizeof(Number)));
  return number;
}

// None where no int64_t holds it.
std::optional<std::int64_t> integer_of(ValueType type, std::span<const std::byte> bytes) {
  switch (type) {
    case ValueType::kU8:
      return mapped_number<std::uint8_t>(bytes);
    case ValueType::kI8:
      return mapped_number<std::int8_t>(bytes);
    case ValueType::kU16:
      return mapped_number<std::uint16_t>(bytes);
    case ValueType::kI16:
      return mapped_number<std::int16_t>(bytes);
    case ValueType::kU32:
      return mapped_number<std::uint32_t>(bytes);
    case ValueType::kI32:
      return mapped_number<std::int32_t>(bytes);
    case ValueType::kI64:
      return mapped_number<std::int64_t>(bytes);
    default:
      break;
  }
  const auto wide = mapped_number<std::uint64_t>(bytes);
  return wide > INT64_MAX ? std::nullopt : std::optional(static_cast<std::int64_t>(wide));
}

double shortest_decimal(float value) {
  std::array<char, 32> text{};
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  double decimal = 0;
  std::from_chars(text.data(), written.ptr, decimal);
  return decimal;
}

std::string text_of(double value) {
  std::array<char, 32> text{};
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), written.ptr};
}

std::string described(const Value& value) {
  if (value.type == ValueType::kArray) {
    return "an array of " + std::to_string(value.count) + " elements of type " +
           std::string(value_type_name(value.element));
  }
  if (value.type == ValueType::kString) {
    std::string text(std::min(value.bytes.size(), 4 * kMostShown), '\0');
    copy_mapped(text.data(), value.bytes.first(text.size()));
    return quote(text);
  }
  const std::string type = " of type " + std::string(value_type_name(value.type));
  if (value.type == ValueType::kBool) {
    return std::to_string(mapped_number<std::uint8_t>(value.bytes)) + type;
  }
  if (value.type == ValueType::kF32) return text_of(mapped_number<float>(value.bytes)) + type;
  if (value.type == ValueType::kF64) return text_of(mapped_number<double>(value.bytes)) + type;
  const auto number = integer_of(value.type, value.bytes);
  return (number ? std::to_string(*number) : "a number of 2^63 or more") + type;
}

}  // namespace

std::string_view value_type_name(ValueType type) {
  return kValueTypes[static_cast<std::size_t>(type)].name;
}

std::size_t value_bytes(ValueType type) {
  return kValueTypes[static_cast<std::size_t>(type)].bytes;
}

void Field::fail(const std::string& expected) const {
  throw Error(where_ + ": expected " + expected + ", got " + described(*value_));
}

std::string Field::string() const {
  if (value_->type != ValueType::kString) fail("a string");
  std::string text(value_->bytes.size(), '\0');
  copy_mapped(text.data(), value_->bytes);
  check_utf8(text, where_);
  return text;
}

bool Field::boolean() const {
  if (value_->type != ValueType::kBool) fail("true or false");
  const auto byte = mapped_number<std::uint8_t>(value_->bytes);
  if (byte > 1) fail("true (1) or false (0)");
  return byte == 1;
}

std::int64_t Field::integer(std::int64_t least, std::int64_t most) const {
  const auto number =
      is_integer(value_->type) ? integer_of(value_->type, value_->bytes) : std::nullopt;
  if (!number || *number < least || *number > most) {
    fail("an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return *number;
}

double Field::number() const {
  double number = NAN;
  if (value_->type == ValueType::kF64) number = mapped_number<double>(value_->bytes);
  if (value_->type == ValueType::kF32) {
    const auto narrow = mapped_number<float>(value_->bytes);
    number = std::isfinite(narrow) ? shortest_decimal(narrow) : NAN;
  }
  if (!std::isfinite(number)) fail("a finite number of type float32 or float64");
  return number;
}

void Field::expect_array(const std::string& expected, bool has_right_elements) const {
  if (!is_array() || !has_right_elements) fail("an array of " + expected);
}

std::uint64_t Field::count() const {
  if (!is_array()) fail("an array");
  return value_->count;
}

std::vector<std::string> Field::strings() const {
  expect_array("strings", value_->element == ValueType::kString);
  std::vector<std::string> all(value_->count);
  std::span<const std::byte> rest = value_->bytes;
  for (std::string& text : all) {
    text.resize(mapped_number<std::uint64_t>(rest));
    copy_mapped(text.data(), rest.subspan(8, text.size()));
    rest = rest.subspan(8 + text.size());
  }
  return all;
}

std::vector<std::int64_t> Field::integers() const {
  expect_array("integers", is_integer(value_->element));
  std::vector<std::int64_t> all(value_->count);
  const std::size_t bytes = value_bytes(value_->element);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto number = integer_of(value_->element, value_->bytes.subspan(i * bytes, bytes));
    if (!number) fail("integers below 2^63");
    all[i] = *number;
  }
  return all;
}

std::vector<float> Field::numbers() const {
  expect_array("float32", value_->element == ValueType::kF32);
  std::vector<float> all(value_->count);
  copy_mapped(all.data(), value_->bytes);
  return all;
}

std::int64_t Field::same_integer(std::int64_t least, std::int64_t most) const {
  if (!is_array()) return integer(least, most);
  const std::vector<std::int64_t> all = integers();
  for (const std::int64_t number : all) {
    if (number != all.front() || number < least || number > most) {
      fail("one integer, the same for all layers, from " + std::to_string(least) + " to " +
           std::to_string(most));
    }
  }
  if (all.empty()) fail("an integer");
  return all.front();
}

std::optional<Field> Metadata::find(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  return Field(found->second, path_ + ": " + key);
}

Field Metadata::at(const std::string& key) const {
  if (auto field = find(key)) return *std::move(field);
  throw Error(path_ + ": expected a key \"" + key + "\", found none");
}

}  // namespace memlayers::io::gguf

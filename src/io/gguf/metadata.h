// SPDX-License-Identifier: Apache-2.0
// The keys and values at the head of a GGUF file. They are untrusted, and stay in the mapped file
// until they are asked for: a value says where it stands, so that every complaint names file and
// key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::io::gguf {

// By the numbers that files have.
enum class ValueType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

std::string_view value_type_name(ValueType type);
// 0 for strings and arrays.
std::size_t value_bytes(ValueType type);

// A value whose bytes are known to lie inside its file.
struct Value {
  ValueType type;
  ValueType element;                 // of an array
  std::uint64_t count;               // of an array's elements
  std::span<const std::byte> bytes;  // of strings in an array with their lengths
};

// All functions throw Error naming file and key for a value of another type or out of range.
class Field {
 public:
  Field(const Value& value, std::string where) : value_(&value), where_(std::move(where)) {}

  // Throws Error("<where>: expected <expected>, got <value>").
  [[noreturn]] void fail(const std::string& expected) const;
  bool is_array() const { return value_->type == ValueType::kArray; }
  std::string string() const;  // UTF-8
  bool boolean() const;
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  // Finite. Of a float32 the decimal number of fewest digits that rounds to it: 1e-05, not
  // 9.999999747378752e-06.
  double number() const;

  // Of arrays; memory is taken in proportion to the bytes that are in the file.
  std::uint64_t count() const;
  std::vector<std::string> strings() const;  // of any bytes
  std::vector<std::int64_t> integers() const;
  std::vector<float> numbers() const;  // of float32
  // The one integer that a number, or each element of an array, is.
  std::int64_t same_integer(std::int64_t least, std::int64_t most) const;

 private:
  void expect_array(const std::string& expected, bool has_right_elements) const;
  const Value* value_;
  std::string where_;
};

class Metadata {
 public:
  explicit Metadata(std::string path = "") : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  // False where the key is there already.
  bool add(std::string key, const Value& value) {
    return values_.emplace(std::move(key), value).second;
  }
  const std::map<std::string, Value>& values() const { return values_; }

  std::optional<Field> find(const std::string& key) const;
  Field at(const std::string& key) const;  // throws Error where it is absent

 private:
  std::string path_;
  std::map<std::string, Value> values_;
};

}  // namespace memlayers::io::gguf

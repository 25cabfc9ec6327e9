// SPDX-License-Identifier: Apache-2.0
#include "io/json_object.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "io/nearest.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using nlohmann::json;

bool is_integer(const json& value) {  // that an int64_t holds
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return value.is_number_integer() &&
         (!value.is_number_unsigned() || value.get<std::uint64_t>() <= kMax);
}

}  // namespace

JsonObject::JsonObject(const json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw Error(where_ + ": expected an object, got " + brief(object));
}

bool JsonObject::is_given(const char* name) const { return object_.contains(name); }
bool JsonObject::has(const char* name) const { return is_given(name) && !object_[name].is_null(); }

std::int64_t JsonObject::integer(const char* name) const {
  const json& value = at(name);
  if (!is_integer(value)) fail(name, "an integer");
  return value.get<std::int64_t>();
}

double JsonObject::number(const char* name) const {
  const json& value = at(name);
  if (!value.is_number() || !std::isfinite(value.get<double>())) fail(name, "a number");
  return value.get<double>();
}

bool JsonObject::boolean(const char* name) const {
  const json& value = at(name);
  if (!value.is_boolean()) fail(name, "true or false");
  return value.get<bool>();
}

std::string JsonObject::string(const char* name) const {
  const json& value = at(name);
  if (!value.is_string()) fail(name, "a string");
  return value.get<std::string>();
}

std::vector<std::int64_t> JsonObject::integers(const char* name) const {
  const json& value = at(name);
  if (is_integer(value)) return {value.get<std::int64_t>()};
  if (!value.is_array()) fail(name, "an integer or a list of them");
  std::vector<std::int64_t> list;
  for (const json& item : value) {
    if (!is_integer(item)) fail(name, "an integer or a list of them");
    list.push_back(item.get<std::int64_t>());
  }
  return list;
}

std::vector<double> JsonObject::numbers(const char* name) const {
  const json& value = at(name);
  if (!value.is_array()) fail(name, "a list of numbers");
  std::vector<double> list;
  for (const json& item : value) {
    if (!item.is_number() || !std::isfinite(item.get<double>())) fail(name, "a list of numbers");
    list.push_back(item.get<double>());
  }
  return list;
}

std::vector<std::string> JsonObject::strings(const char* name) const {
  const json& value = at(name);
  if (!value.is_array()) fail(name, "a list of strings");
  std::vector<std::string> list;
  for (const json& item : value) {
    if (!item.is_string()) fail(name, "a list of strings");
    list.push_back(item.get<std::string>());
  }
  return list;
}

JsonObject JsonObject::object(const char* name) const { return {at(name), where_ + ": " + name}; }

std::int64_t JsonObject::integer(const char* name, std::int64_t absent) const {
  return is_given(name) ? integer(name) : absent;
}
double JsonObject::number(const char* name, double absent) const {
  return is_given(name) ? number(name) : absent;
}
bool JsonObject::boolean(const char* name, bool absent) const {
  return is_given(name) ? boolean(name) : absent;
}

void JsonObject::expect_only(const std::vector<std::string>& known) const {
  for (const auto& [name, value] : object_.items()) {
    if (std::ranges::find(known, name) == known.end()) {
      throw Error(where_ + ": unknown field " + quote(name) + "; did you mean \"" +
                  nearest(name, known) + "\"?");
    }
  }
}

void JsonObject::expect_no_objects() const {
  for (const auto& [name, value] : object_.items()) {
    if (value.is_object()) fail(name.c_str(), "a number or string");
  }
}

void JsonObject::expect_neutral(const char* name, std::initializer_list<json> neutral) const {
  if (!has(name) || std::ranges::find(neutral, object_[name]) != neutral.end()) return;
  std::string wanted = "null";
  for (const json& value : neutral) wanted += " or " + value.dump();
  fail(name, wanted);
}

void JsonObject::fail(const char* name, const std::string& wanted) const {
  throw Error(where_ + ": " + name + ": expected " + wanted + ", got " + brief(object_[name]));
}

const json& JsonObject::at(const char* name) const {
  if (!has(name)) throw Error(where_ + ": expected a field \"" + name + "\", found none");
  return object_[name];
}

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
#include "io/json_field.h"

#include <algorithm>
#include <cmath>

#include "io/json.h"
#include "io/nearest.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io {

JsonField::JsonField(const nlohmann::json& value, std::string where)
    : value_(&value), where_(std::make_shared<const std::string>(std::move(where))) {}

std::string JsonField::place() const {
  std::string text = *where_;
  if (!text.empty()) text += ": ";
  return path_.empty() ? text : text + path_ + ": ";
}

void JsonField::fail(std::string_view expected) const {
  throw FieldError(place().append("expected ").append(expected).append(", got ") + brief(*value_),
                   path_);
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) fail("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail("true or false");
  return value_->get<bool>();
}

double JsonField::number() const {
  if (!value_->is_number() || !std::isfinite(value_->get<double>())) fail("a number");
  return value_->get<double>();
}

bool JsonField::is_integer() const {
  return value_->is_number_unsigned()
             ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)
             : value_->is_number_integer();
}

std::int64_t JsonField::integer(std::int64_t least, std::int64_t most) const {
  if (!is_integer() || value_->get<std::int64_t>() < least || value_->get<std::int64_t>() > most) {
    if (most < INT64_MAX) {
      fail("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
    }
    fail(least == INT64_MIN ? "a whole number" : "a whole number >= " + std::to_string(least));
  }
  return value_->get<std::int64_t>();
}

std::uint64_t JsonField::bits() const {
  if (!value_->is_number_unsigned()) fail("a whole number from 0 to 2^64 - 1");
  return value_->get<std::uint64_t>();
}

std::vector<JsonField> JsonField::elements() const {
  if (!value_->is_array()) fail("a list");
  std::vector<JsonField> all;
  all.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i) {
    all.push_back({(*value_)[i], where_, path_ + "[" + std::to_string(i) + "]"});
  }
  return all;
}

std::vector<std::pair<std::string, JsonField>> JsonField::members() const {
  if (!value_->is_object()) fail("an object");
  std::vector<std::pair<std::string, JsonField>> all;
  all.reserve(value_->size());
  for (const auto& [name, value] : value_->items()) {
    all.emplace_back(name, JsonField(value, where_, path_ + "[" + quote(name) + "]"));
  }
  return all;
}

std::optional<JsonField> JsonField::find(const std::string& name) const {
  if (!value_->is_object()) fail("an object");
  const auto found = value_->find(name);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonField(*found, where_, path_.empty() ? name : path_ + "." + name);
}

JsonField JsonField::at(const std::string& name) const {
  auto found = find(name);
  if (!found) fail("a field \"" + name + "\"");
  return *std::move(found);
}

bool JsonField::boolean_or(const std::string& name, bool otherwise) const {
  const auto found = find(name);
  return found ? found->boolean() : otherwise;
}

std::string JsonField::string_or(const std::string& name, const std::string& otherwise) const {
  const auto found = find(name);
  return found ? found->string() : otherwise;
}

void JsonField::expect_only(const std::vector<std::string>& known) const {
  if (!value_->is_object()) fail("an object");
  for (const auto& [name, value] : value_->items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw FieldError(place() + "unknown field " + quote(name) + "; did you mean \"" +
                         nearest(name, known) + "\"?",
                     path_.empty() ? name : path_ + "." + name);
  }
}

}  // namespace memlayers::io

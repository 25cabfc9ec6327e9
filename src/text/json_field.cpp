// SPDX-License-Identifier: Apache-2.0
#include "text/json_field.h"

#include <utility>

#include "memlayers/error.h"

namespace memlayers::text {

void JsonField::fail(const std::string& expected) const {
  constexpr std::size_t kShown = 60;
  std::string found = value_->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (found.size() > kShown) found = found.substr(0, kShown) + "...";
  throw Error(path_ + ": expected " + expected + ", got " + found);
}

const std::string& JsonField::string() const {
  if (!value_->is_string()) fail("a string");
  return value_->get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail("true or false");
  return value_->get<bool>();
}

std::int64_t JsonField::integer(std::int64_t least, std::int64_t most) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)
                        : value_->is_number_integer();
  if (!fits || value_->get<std::int64_t>() < least || value_->get<std::int64_t>() > most) {
    fail("a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return value_->get<std::int64_t>();
}

std::vector<JsonField> JsonField::elements() const {
  if (!value_->is_array()) fail("a list");
  std::vector<JsonField> all;
  all.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i) {
    all.emplace_back((*value_)[i], path_ + "[" + std::to_string(i) + "]");
  }
  return all;
}

std::vector<std::pair<std::string, JsonField>> JsonField::members() const {
  if (!value_->is_object()) fail("an object");
  std::vector<std::pair<std::string, JsonField>> all;
  all.reserve(value_->size());
  for (const auto& [name, value] : value_->items()) {
    all.emplace_back(name, JsonField(value, path_ + "[\"" + name + "\"]"));
  }
  return all;
}

std::optional<JsonField> JsonField::find(const std::string& name) const {
  if (!value_->is_object()) fail("an object");
  const auto found = value_->find(name);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  const bool at_top = path_.find(": ") == std::string::npos;  // path_ is the file's alone
  return JsonField(*found, path_ + (at_top ? ": " : ".") + name);
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

}  // namespace memlayers::text

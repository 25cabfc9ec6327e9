// SPDX-License-Identifier: Apache-2.0
// A value of an untrusted JSON file that knows where it stands, so that every complaint names file
// and field: "tokenizer.json: model.merges[3]: expected two tokens, got \"a\"".
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memlayers/error.h"

namespace memlayers::io {

// A field that is wrong, or should not be there.
class FieldError : public Error {
 public:
  FieldError(const std::string& message, std::string field)
      : Error(message), field_(std::move(field)) {}
  const std::string& field() const { return field_; }  // "messages[0].role"; "": the whole value

 private:
  std::string field_;
};

class JsonField {
 public:
  // `value` must outlive the field and those made from it. `where` begins every complaint, and may
  // be empty where a caller puts it before.
  JsonField(const nlohmann::json& value, std::string where);

  // Throws FieldError("<where>: <field>: expected <expected>, got <value>"), as all that follow.
  [[noreturn]] void fail(std::string_view expected) const;
  const nlohmann::json& json() const { return *value_; }
  const std::string& path() const { return path_; }  // from the outermost value: "a.b[3]"
  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  bool is_object() const { return value_->is_object(); }
  bool is_integer() const;  // that an int64_t holds
  const std::string& string() const;
  bool boolean() const;
  double number() const;  // finite
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  std::int64_t count() const {
    return integer(0, INT64_MAX);
  }  // of what there cannot be less than none
  std::uint64_t bits() const;               // any of 64: a hash, a place in a file
  std::vector<JsonField> elements() const;  // of an array
  std::vector<std::pair<std::string, JsonField>> members() const;  // of an object

  // Of an object. A member that is null counts as absent.
  std::optional<JsonField> find(const std::string& name) const;
  JsonField at(const std::string& name) const;
  bool boolean_or(const std::string& name, bool otherwise) const;
  std::string string_or(const std::string& name, const std::string& otherwise) const;
  std::string type() const { return string_or("type", ""); }
  // Throws FieldError for a member of another name, with the nearest of `known`.
  void expect_only(const std::vector<std::string>& known) const;

 private:
  JsonField(const nlohmann::json& value, std::shared_ptr<const std::string> where, std::string path)
      : value_(&value), where_(std::move(where)), path_(std::move(path)) {}
  std::string place() const;  // "<where>: <field>: "

  const nlohmann::json* value_;
  std::shared_ptr<const std::string> where_;
  std::string path_;
};

}  // namespace memlayers::io

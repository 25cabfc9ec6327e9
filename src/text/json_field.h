// SPDX-License-Identifier: Apache-2.0
// A value of an untrusted JSON file that knows where it stands, so that every complaint names file
// and field: "tokenizer.json: model.merges[3]: expected two tokens, got \"a\"".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace memlayers::text {

class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string path)
      : value_(&value), path_(std::move(path)) {}

  [[noreturn]] void fail(
      const std::string& expected) const;  // "...: expected <expected>, got <value>"
  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  const std::string& string() const;
  bool boolean() const;
  std::int64_t integer(std::int64_t least, std::int64_t most) const;
  std::vector<JsonField> elements() const;                         // of an array
  std::vector<std::pair<std::string, JsonField>> members() const;  // of an object

  // Of an object. A member that is null counts as absent.
  std::optional<JsonField> find(const std::string& name) const;
  JsonField at(const std::string& name) const;
  bool boolean_or(const std::string& name, bool otherwise) const;
  std::string string_or(const std::string& name, const std::string& otherwise) const;
  std::string type() const { return string_or("type", ""); }

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace memlayers::text

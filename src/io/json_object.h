// SPDX-License-Identifier: Apache-2.0
// Typed access to the fields of one JSON object; every complaint names the file and the field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace memlayers::io {

// All functions throw Error. Keeps a reference to what it is made of.
class JsonObject {
 public:
  // `where` begins messages: the file, and the names of the fields around.
  JsonObject(const nlohmann::json& object, std::string where);

  bool is_given(const char* name) const;  // null as well
  bool has(const char* name) const;       // something else than null

  // Of a field that is absent or null: an Error.
  std::int64_t integer(const char* name) const;
  double number(const char* name) const;  // finite
  bool boolean(const char* name) const;
  std::string string(const char* name) const;
  std::vector<std::int64_t> integers(const char* name) const;  // a number is a list of one
  std::vector<double> numbers(const char* name) const;         // finite
  std::vector<std::string> strings(const char* name) const;
  JsonObject object(const char* name) const;

  // Of a field that is absent: `absent`.
  std::int64_t integer(const char* name, std::int64_t absent) const;
  double number(const char* name, double absent) const;
  bool boolean(const char* name, bool absent) const;

  // A newer writer's field may change what is computed, so an unknown one is no trifle.
  void expect_only(const std::vector<std::string>& known) const;
  void expect_no_objects() const;
  // The field, where it stands, is null or one of these, which leave things as they are.
  void expect_neutral(const char* name, std::initializer_list<nlohmann::json> neutral) const;

  [[noreturn]] void fail(const char* name, const std::string& wanted) const;

 private:
  const nlohmann::json& at(const char* name) const;
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace memlayers::io

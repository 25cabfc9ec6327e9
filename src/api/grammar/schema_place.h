// SPDX-License-Identifier: Apache-2.0
// A part of a schema, and where it stands.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/grammar/program.h"

namespace memlayers::api::grammar {

using SchemaJson = nlohmann::ordered_json;  // properties are asked for in their order

struct SchemaPlace {
  const SchemaJson* value = nullptr;
  std::string path = {};  // "properties.age"; empty: the schema itself

  // Throws Refusal 400 "<path>: expected <expected>, got <value>".
  [[noreturn]] void fail(std::string_view expected) const;
  const SchemaJson* find(const char* keyword) const;  // null where it is not there
  SchemaPlace at(const std::string& keyword) const;
  SchemaPlace at(std::size_t index) const;
  bool has(const char* keyword) const { return find(keyword) != nullptr; }
  // Fails for a keyword that is neither one of `known` nor an annotation.
  void expect_only(std::initializer_list<std::string_view> known, std::string_view beside) const;
  // Of a keyword that is absent: `absent`.
  std::uint32_t count(const char* keyword, std::uint32_t absent) const;
  std::vector<SchemaPlace> list(const char* keyword) const;  // of an array
  const std::string& text(const char* keyword) const;        // valid UTF-8, of some length
  // The schemas that "$ref" at this place leads to, one after the other.
  SchemaPlace referred(const SchemaJson& document) const;
};

bool is_annotation(std::string_view keyword);

}  // namespace memlayers::api::grammar

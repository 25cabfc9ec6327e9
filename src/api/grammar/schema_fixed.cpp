// SPDX-License-Identifier: Apache-2.0
// "const" and "enum": values that are written out.
#include <algorithm>
#include <cmath>

#include "api/grammar/characters.h"
#include "api/grammar/schema_rules.h"
#include "io/utf8.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::size_t kMostCharacters = 1024;  // of a text among others

bool has_type(const SchemaJson& value, const SchemaJson& type) {
  if (type.is_array()) {
    return std::ranges::any_of(type, [&](const SchemaJson& one) { return has_type(value, one); });
  }
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && value.get<double>() == std::floor(value.get<double>()));
  }
  return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
         (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
         (type == "boolean" && value.is_boolean()) || (type == "null" && value.is_null());
}

}  // namespace

NodeId SchemaRules::fixed(const SchemaPlace& place, NodeId end) {
  std::vector<const SchemaJson*> values;
  if (place.has("enum")) {
    for (const SchemaPlace& one : place.list("enum")) values.push_back(one.value);
  }
  if (const SchemaJson* const only = place.find("const")) {
    if (place.has("enum")) place.at("enum").fail("no such keyword beside \"const\"");
    values.push_back(only);
  }
  std::set<std::u32string> texts;
  std::vector<NodeId> ways;
  for (const SchemaJson* const value : values) {
    const SchemaJson* const type = place.find("type");
    if (type != nullptr && !has_type(*value, *type)) continue;
    if (value->is_string() && values.size() > 1) {
      std::u32string text = code_points(value->get_ref<const std::string&>());
      if (text.size() > kMostCharacters) {
        place.at("enum").fail("texts of at most " + std::to_string(kMostCharacters) +
                              " characters");
      }
      texts.insert(std::move(text));
    } else {
      ways.push_back(fixed_value(*value, end));
    }
  }
  if (!texts.empty()) ways.push_back(program_.byte('"', fixed_texts(texts, end)));
  return ways.empty() ? program_.nothing() : program_.any_of(ways);
}

NodeId SchemaRules::fixed_value(const SchemaJson& value, NodeId next) {
  if (value.is_string()) {
    return program_.byte(
        '"', literal(program_, value.get_ref<const std::string&>(), program_.byte('"', next)));
  }
  if (!value.is_structured()) return program_.text(value.dump(), next);
  const bool is_object = value.is_object();
  NodeId begin = program_.byte(is_object ? '}' : ']', next);
  if (!value.empty()) begin = program_.blank(begin);
  for (auto item = value.end(); item != value.begin();) {
    --item;
    begin = fixed_value(*item, begin);
    if (is_object) {
      begin = program_.byte(':', program_.split(program_.byte(' ', begin), begin));
      begin = fixed_value(SchemaJson(item.key()), begin);
    }
    begin = program_.blank(begin);
    if (item != value.begin()) begin = program_.byte(',', begin);
  }
  return program_.byte(is_object ? '{' : '[', begin);
}

// What they have in common is read once: a list of thousands is no more than its longest text.
NodeId SchemaRules::fixed_texts(const std::set<std::u32string>& texts, NodeId next) {
  using Text = std::set<std::u32string>::const_iterator;
  const NodeId quote = program_.byte('"', next);
  const auto behind = [&](const auto& self, Text first, Text last, std::size_t depth) -> NodeId {
    std::vector<NodeId> ways;
    if (first->size() == depth) {
      ways.push_back(quote);
      ++first;
    }
    while (first != last) {
      const char32_t code = (*first)[depth];
      const Text end =
          std::find_if(first, last, [&](const auto& text) { return text[depth] != code; });
      std::string utf8;
      io::append_utf8(utf8, code);
      ways.push_back(literal(program_, utf8, self(self, first, end, depth + 1)));
      first = end;
    }
    return program_.any_of(ways);
  };
  return behind(behind, texts.begin(), texts.end(), 0);
}

}  // namespace memlayers::api::grammar

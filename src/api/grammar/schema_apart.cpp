// SPDX-License-Identifier: Apache-2.0
// "oneOf": no value may satisfy two of its schemas, or an answer could be of two and so of none.
#include <algorithm>
#include <map>
#include <optional>

#include "api/grammar/schema_rules.h"

namespace memlayers::api::grammar {
namespace {

constexpr int kMostSteps = 64;  // of references that lead to references

// Behind "$ref" and the like, as far as there is one way.
SchemaPlace resolved(SchemaPlace place, const SchemaJson& document) {
  for (int step = 0; step < kMostSteps && place.value->is_object(); ++step) {
    if (place.has("$ref")) {
      place = place.referred(document);
    } else if (const SchemaJson* const all = place.find("allOf");
               all != nullptr && all->is_array() && all->size() == 1) {
      place = place.list("allOf").front();
    } else {
      break;
    }
  }
  return place;
}

using Listed = std::set<std::string>;  // as JSON texts

// The values that are allowed, where they are listed.
std::optional<Listed> listed(const SchemaJson& schema) {
  if (!schema.is_object()) return std::nullopt;
  if (const auto one = schema.find("const"); one != schema.end()) return Listed{one->dump()};
  const auto some = schema.find("enum");
  if (some == schema.end() || !some->is_array()) return std::nullopt;
  Listed values;
  for (const SchemaJson& value : *some) values.insert(value.dump());
  return values;
}

std::string type_of(const SchemaJson& value) {
  return value.is_object()    ? "object"
         : value.is_array()   ? "array"
         : value.is_string()  ? "string"
         : value.is_number()  ? "number"
         : value.is_boolean() ? "boolean"
                              : "null";
}

// None: perhaps all.
std::optional<std::set<std::string>> types_of(const SchemaPlace& place) {
  if (!place.value->is_object()) return std::nullopt;
  std::set<std::string> types;
  for (const char* const keyword : {"const", "enum"}) {
    const SchemaJson* const values = place.find(keyword);
    if (values == nullptr) continue;
    if (keyword == std::string_view("const")) return std::set{type_of(*values)};
    for (const SchemaJson& value : *values) types.insert(type_of(value));
    return types;
  }
  const SchemaJson* const type = place.find("type");
  if (type == nullptr) return std::nullopt;
  for (const SchemaJson& name : type->is_array() ? *type : SchemaJson::array({*type})) {
    if (!name.is_string()) return std::nullopt;
    types.insert(name == "integer" ? "number" : name.get<std::string>());
  }
  return types;
}

bool share(const std::set<std::string>& a, const std::set<std::string>& b) {
  return std::ranges::any_of(a, [&](const std::string& one) { return b.contains(one); });
}

// The properties that must be there and whose values are listed.
std::map<std::string, Listed> listed_properties(const SchemaPlace& place,
                                                const SchemaJson& document) {
  std::map<std::string, Listed> all;
  const SchemaJson *const properties = place.find("properties"), *const names =
                                                                     place.find("required");
  if (properties == nullptr || !properties->is_object() || names == nullptr || !names->is_array()) {
    return all;
  }
  std::set<std::string> required;
  for (const SchemaJson& name : *names) {
    if (name.is_string()) required.insert(name.get<std::string>());
  }
  for (const auto& [name, value] : properties->items()) {
    if (!required.contains(name)) continue;
    if (auto values = listed(*resolved({&value, name}, document).value)) {
      all[name] = *std::move(values);
    }
  }
  return all;
}

struct Branch {
  std::optional<std::set<std::string>> types = {};
  std::optional<Listed> values = {};
  std::map<std::string, Listed> properties = {};
};

bool are_apart(const Branch& a, const Branch& b) {
  if (!a.types || !b.types) return false;
  if (!share(*a.types, *b.types)) return true;
  if (a.values && b.values) return !share(*a.values, *b.values);
  const std::set<std::string> objects = {"object"};
  return *a.types == objects && *b.types == objects &&
         std::ranges::any_of(a.properties, [&](const auto& one) {
           const auto other = b.properties.find(one.first);
           return other != b.properties.end() && !share(one.second, other->second);
         });
}

}  // namespace

void SchemaRules::check_apart(const std::vector<SchemaPlace>& branches) const {
  constexpr std::size_t kMostBranches = 100;
  if (branches.size() > kMostBranches) branches[kMostBranches].fail("no more than 100 schemas");
  std::vector<Branch> known;
  for (const SchemaPlace& branch : branches) {
    const SchemaPlace place = resolved(branch, document_);
    Branch one{.types = types_of(place), .values = listed(*place.value)};
    if (place.value->is_object()) one.properties = listed_properties(place, document_);
    known.push_back(std::move(one));
    for (std::size_t i = 0; i + 1 < known.size(); ++i) {
      if (are_apart(known[i], known.back())) continue;
      branch.fail(
          "schemas that no value satisfies together (other types, or a required property with "
          "other \"const\" or \"enum\" in each), or \"anyOf\"");
    }
  }
}

}  // namespace memlayers::api::grammar

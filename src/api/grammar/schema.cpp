// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/schema.h"

#include <algorithm>
#include <array>
#include <utility>

#include "api/engine.h"
#include "api/grammar/schema_rules.h"
#include "io/json.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::size_t kMostSteps = 256;

constexpr std::array<const char*, 6> kTypes{"object", "array",   "string",
                                            "number", "boolean", "null"};
// Of which type a keyword speaks, where none is named.
constexpr std::array<std::pair<const char*, const char*>, 17> kTypeOf{{
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
    {"multipleOf", "number"},
}};

}  // namespace

Program SchemaRules::compile(const ByteSet& single) {
  const Values root = values({&document_, ""});
  const RuleId answer = program_.new_rule();
  program_.define(answer, [&](NodeId end) { return call(root, end); });
  while (!pending_.empty()) {
    const Pending next = pending_.front();
    pending_.pop_front();
    program_.define(next.rule, [&](NodeId end) { return build(next.place, next.type, end); });
  }
  program_.finish(answer, single);
  return std::move(program_);
}

Values SchemaRules::values(const SchemaPlace& place) {
  if (const auto found = known_.find(place.value); found != known_.end()) return found->second;
  if (open_.size() > kMostSteps) {
    place.fail("no more than " + std::to_string(kMostSteps) + " references from one to the next");
  }
  if (!open_.insert(place.value).second) {
    place.fail("a schema that says more than that it is itself");
  }
  Values found = read_values(place);
  std::ranges::sort(found);
  found.erase(std::ranges::unique(found).begin(), found.end());
  open_.erase(place.value);
  return known_[place.value] = std::move(found);
}

Values SchemaRules::read_values(const SchemaPlace& place) {
  if (place.value->is_boolean()) return place.value->get<bool>() ? any_value() : Values();
  if (!place.value->is_object()) place.fail("a schema: an object or a boolean");
  if (place.has("$ref")) {
    place.expect_only({"$ref"}, "beside \"$ref\"");
    return values(place.referred(document_));
  }
  for (const char* const keyword : {"anyOf", "oneOf", "allOf"}) {
    if (!place.has(keyword)) continue;
    place.expect_only({keyword}, "beside \"" + std::string(keyword) + "\"");
    const std::vector<SchemaPlace> branches = place.list(keyword);
    if (branches.empty()) place.at(keyword).fail("a schema or more");
    if (keyword == std::string_view("allOf") && branches.size() > 1) {
      place.at(keyword).fail("one schema: more are not supported");
    }
    if (keyword == std::string_view("oneOf")) check_apart(branches);
    Values all;
    for (const SchemaPlace& branch : branches) {
      const Values some = values(branch);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  if (place.has("enum") || place.has("const")) {
    place.expect_only({"type", "enum", "const"}, "beside \"enum\" or \"const\"");
    return {rule(place, "fixed")};
  }
  return typed(place);
}

Values SchemaRules::typed(const SchemaPlace& place) {
  std::set<std::string> types;
  if (const SchemaJson* const type = place.find("type")) {
    const auto add = [&](const SchemaPlace& name) {
      static const std::set<std::string> kNames(kTypes.begin(), kTypes.end());
      if (!name.value->is_string() ||
          (!kNames.contains(name.value->get<std::string>()) && *name.value != "integer")) {
        name.fail("object, array, string, number, integer, boolean or null");
      }
      types.insert(name.value->get<std::string>());
    };
    if (type->is_array()) {
      for (const SchemaPlace& name : place.list("type")) add(name);
    } else {
      add(place.at("type"));
    }
  } else {
    for (const auto& [keyword, of] : kTypeOf) {
      if (place.has(keyword)) types.insert(of);
    }
    if (types.empty()) {
      place.expect_only({}, "");
      return any_value();
    }
  }
  Values all;
  for (const std::string& type : types) all.push_back(rule(place, type));
  return all;
}

Values SchemaRules::any_value() {
  Values all;
  for (const char* const type : kTypes) all.push_back(rule({&any_, ""}, type));
  return all;
}

NodeId SchemaRules::call(const Values& values, NodeId next) {
  std::vector<NodeId> ways;
  for (const RuleId rule : values) ways.push_back(program_.call(rule, next));
  return ways.empty() ? program_.nothing() : program_.any_of(ways);
}

RuleId SchemaRules::rule(const SchemaPlace& place, const std::string& type) {
  const auto [found, is_new] = rules_.try_emplace({place.value, type}, 0);
  if (is_new) {
    found->second = program_.new_rule();
    pending_.push_back({found->second, place, type});
  }
  return found->second;
}

NodeId SchemaRules::build(const SchemaPlace& place, const std::string& type, NodeId end) {
  if (type != "fixed" && place.value != &any_) {
    place.expect_only(
        {"type", "properties", "required", "additionalProperties", "items", "prefixItems",
         "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "format",
         "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
        "");
  }
  if (type == "fixed") return fixed(place, end);
  if (type == "object") return object(place, end);
  if (type == "array") return array(place, end);
  if (type == "string") return string(place, end);
  if (type == "integer") return integers(place, end);
  if (type == "number") return numbers(place, end);
  if (type == "null") return program_.text("null", end);
  return program_.split(program_.text("true", end), program_.text("false", end));
}

Program compile_schema(std::string_view schema, const ByteSet& single) {
  const auto refuse = [](const std::string& sentence) {
    return Refusal(400, "invalid_json_schema", sentence, "response_format");
  };
  if (schema.size() > kMostSchemaBytes) {
    throw refuse("response_format: schema: expected at most " + std::to_string(kMostSchemaBytes) +
                 " bytes, got " + std::to_string(schema.size()));
  }
  SchemaJson document;
  try {
    document = io::parse_ordered_json(schema, "response_format: schema");
  } catch (const Error& error) {
    throw refuse(error.what());
  }
  return SchemaRules(document).compile(single);
}

}  // namespace memlayers::api::grammar

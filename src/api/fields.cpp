// SPDX-License-Identifier: Apache-2.0
#include "api/fields.h"

#include <algorithm>
#include <string>

#include "api/engine.h"
#include "api/status.h"
#include "io/json.h"
#include "io/nearest.h"
#include "io/number_text.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

std::string path_in(const io::JsonField& object, const std::string& name) {
  return object.path().empty() ? name : object.path() + "." + name;
}

[[noreturn]] void fail_unknown(const io::JsonField& object, const std::string& name,
                               FieldRules rules) {
  std::vector<std::string> names;
  for (const FieldRule& rule : rules) {
    if (rule.neutral.empty()) names.emplace_back(rule.name);
  }
  const std::string path = path_in(object, io::shown(name));
  const std::string near = io::nearest(name, names);
  throw io::FieldError(
      path + ": unknown field" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"), path);
}

void check_neutral(const io::JsonField& object, const std::string& name,
                   const nlohmann::json& value, const FieldRule& rule) {
  if (value.is_null() || rule.neutral.empty() || rule.neutral == "*") return;
  const nlohmann::json neutral = nlohmann::json::parse(rule.neutral);
  if (std::ranges::find(neutral, value) != neutral.end()) return;
  const std::string path = path_in(object, name);
  std::string sentence = path + ": not supported: " + std::string(rule.about);
  if (!neutral.empty()) {
    sentence += "; expected ";
    for (std::size_t i = 0; i < neutral.size(); ++i) {
      sentence += (i == 0 ? "" : " or ") + io::brief(neutral[i]);
    }
    sentence += ", got " + io::brief(value);
  }
  throw Refusal(kBadRequest, "unsupported_parameter", sentence, path);
}

}  // namespace

nlohmann::json parse_body(std::string_view body) {
  try {
    return io::parse_json(body, "body");
  } catch (const Error& error) {
    throw Refusal(kBadRequest, "invalid_json", error.what());
  }
}

void check_fields(const io::JsonField& object, FieldRules rules) {
  if (!object.is_object()) object.fail("an object");
  for (const auto& [name, value] : object.json().items()) {
    const auto rule = std::ranges::find(rules, std::string_view(name), &FieldRule::name);
    if (rule == rules.end()) fail_unknown(object, name, rules);
    check_neutral(object, name, value, *rule);
  }
}

double number_in(const io::JsonField& field, double least, double most) {
  const auto& json = field.json();
  if (!json.is_number() || !(json.get<double>() >= least && json.get<double>() <= most)) {
    field.fail("a number in [" + io::number_text(least) + ", " + io::number_text(most) + "]");
  }
  return json.get<double>();
}

double number_above(const io::JsonField& field, double bound, double most) {
  const auto& json = field.json();
  if (!json.is_number() || !(json.get<double>() > bound && json.get<double>() <= most)) {
    field.fail("a number in (" + io::number_text(bound) + ", " + io::number_text(most) + "]");
  }
  return json.get<double>();
}

std::int64_t integer_or(const io::JsonField& object, const std::string& name,
                        std::int64_t otherwise, std::int64_t least, std::int64_t most) {
  const auto field = object.find(name);
  return field ? field->integer(least, most) : otherwise;
}

std::vector<std::int32_t> token_ids(const io::JsonField& list, std::int64_t vocab_size) {
  std::vector<std::int32_t> ids;
  const auto& json = list.json();
  if (!json.is_array()) list.fail("a list of token ids");
  ids.reserve(json.size());
  for (const auto& id : json) {  // there may be a million of them: no field for each
    if (!id.is_number_unsigned() ||
        id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocab_size)) {
      list.elements()[ids.size()].fail("a token id in [0, " + std::to_string(vocab_size) + ")");
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

const std::string& some_text(const io::JsonField& field) {
  if (field.string().empty()) field.fail("text");
  return field.string();
}

}  // namespace memlayers::api

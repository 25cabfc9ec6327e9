// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/schema_place.h"

#include <algorithm>
#include <array>

#include "api/engine.h"
#include "io/shown.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::size_t kMostText = 1024;  // characters of a name or of a value
constexpr std::int64_t kMostCount = 1'000'000'000;

// What says nothing of a value, or is looked up by "$ref" alone.
constexpr std::array<std::string_view, 13> kAnnotations{
    "title",    "description", "default", "examples",    "deprecated",    "readOnly", "writeOnly",
    "$comment", "$schema",     "$defs",   "definitions", "discriminator", "$id"};

}  // namespace

bool is_annotation(std::string_view keyword) {
  return std::ranges::find(kAnnotations, keyword) != kAnnotations.end();
}

void SchemaPlace::fail(std::string_view expected) const {
  const std::string got =
      io::shown(value->dump(-1, ' ', false, SchemaJson::error_handler_t::replace), 80);
  throw Refusal(400, "invalid_json_schema",
                "response_format: schema" + (path.empty() ? "" : "." + io::shown(path)) +
                    ": expected " + std::string(expected) + ", got " + got,
                "response_format");
}

const SchemaJson* SchemaPlace::find(const char* keyword) const {
  const auto found = value->find(keyword);
  return found == value->end() ? nullptr : &*found;
}

SchemaPlace SchemaPlace::at(const std::string& keyword) const {
  return {&value->at(keyword), path + (path.empty() ? "" : ".") + keyword};
}

SchemaPlace SchemaPlace::at(std::size_t index) const {
  return {&value->at(index), path + "[" + std::to_string(index) + "]"};
}

void SchemaPlace::expect_only(std::initializer_list<std::string_view> known,
                              std::string_view beside) const {
  for (const auto& [keyword, member] : value->items()) {
    if (is_annotation(keyword) || std::ranges::find(known, keyword) != known.end()) {
      // Inside another schema it would change what references mean.
      if (keyword != "$id" || path.empty()) continue;
    }
    throw Refusal(400, "invalid_json_schema",
                  "response_format: schema" + (path.empty() ? "" : "." + io::shown(path)) +
                      ": the keyword " + io::quote(keyword) + " is not supported " +
                      std::string(beside),
                  "response_format");
  }
}

std::uint32_t SchemaPlace::count(const char* keyword, std::uint32_t absent) const {
  if (!has(keyword)) return absent;
  const SchemaPlace place = at(keyword);
  const SchemaJson& number = *place.value;
  if (!number.is_number_integer() || number < 0 || number > kMostCount) {
    place.fail("a count of at most " + std::to_string(kMostCount));
  }
  return number.get<std::uint32_t>();
}

std::vector<SchemaPlace> SchemaPlace::list(const char* keyword) const {
  const SchemaPlace place = at(keyword);
  if (!place.value->is_array()) place.fail("a list");
  std::vector<SchemaPlace> all;
  for (std::size_t i = 0; i < place.value->size(); ++i) all.push_back(place.at(i));
  return all;
}

const std::string& SchemaPlace::text(const char* keyword) const {
  const SchemaPlace place = at(keyword);
  if (!place.value->is_string() || place.value->get_ref<const std::string&>().size() > kMostText) {
    place.fail("a text of at most " + std::to_string(kMostText) + " bytes");
  }
  return place.value->get_ref<const std::string&>();
}

SchemaPlace SchemaPlace::referred(const SchemaJson& document) const {
  const std::string& reference = text("$ref");
  const SchemaPlace here = at("$ref");
  if (!reference.starts_with('#') || (reference.size() > 1 && reference[1] != '/')) {
    here.fail("\"#\" or a place of this schema behind \"#/\"");
  }
  SchemaPlace target{&document, ""};
  for (std::size_t begin = 2; begin <= reference.size();) {
    const std::size_t end = std::min(reference.find('/', begin), reference.size());
    std::string name;
    for (std::size_t i = begin; i < end; ++i) {
      const std::string_view escape = std::string_view(reference).substr(i, 2);
      name += escape == "~0" ? '~' : escape == "~1" ? '/' : reference[i];
      if (escape == "~0" || escape == "~1") ++i;
    }
    if (!target.value->is_object() || !target.value->contains(name)) {
      here.fail("a place that this schema has");
    }
    target = target.at(name);
    begin = end + 1;
  }
  return target;
}

}  // namespace memlayers::api::grammar

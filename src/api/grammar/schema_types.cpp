// SPDX-License-Identifier: Apache-2.0
// What the keywords of each type make of it.
#include <algorithm>
#include <cmath>
#include <optional>

#include "api/engine.h"
#include "api/grammar/characters.h"
#include "api/grammar/numbers.h"
#include "api/grammar/pattern.h"
#include "api/grammar/schema_rules.h"
#include "memlayers/error.h"

namespace memlayers::api::grammar {
namespace {

constexpr const char* kTime = R"(([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?)";

std::string date_pattern() {
  constexpr const char* kYear = R"((\d{3}[1-9]|\d{2}[1-9]0|\d[1-9]00|[1-9]000))";
  constexpr const char* kLeapYear =
      R"((\d{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00))";
  return std::string("(") + kYear +
         R"(-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|)" +
         R"(02-(0[1-9]|1\d|2[0-8]))|)" + kLeapYear + "-02-29)";
}

std::string format_pattern(const SchemaPlace& place) {
  const std::string zone = R"((Z|[+-]([01]\d|2[0-3]):[0-5]\d))";
  const std::string& name = place.text("format");
  if (name == "date") return "^" + date_pattern() + "$";
  if (name == "time") return "^" + std::string(kTime) + zone + "$";
  if (name == "date-time") return "^" + date_pattern() + "T" + kTime + zone + "$";
  if (name == "uuid") return "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$";
  place.at("format").fail("date, time, date-time or uuid: others are not supported");
}

// "minimum" or "exclusiveMinimum" (of the same number: the latter), as a number.
struct Limit {
  SchemaPlace place;
  double value = 0;
  bool is_excluded = false;
};
std::optional<Limit> limit(const SchemaPlace& place, const char* included, const char* excluded,
                           bool is_least) {
  std::optional<Limit> found;
  for (const char* const keyword : {included, excluded}) {
    if (!place.has(keyword)) continue;
    const SchemaPlace at = place.at(keyword);
    if (!at.value->is_number()) at.fail("a number");
    const auto value = at.value->get<double>();
    const bool is_tighter = !found || (is_least ? value >= found->value : value <= found->value);
    if (is_tighter) found = Limit{at, value, keyword == excluded};
  }
  return found;
}

std::optional<NumberLimit> whole_limit(const std::optional<Limit>& limit) {
  if (!limit) return std::nullopt;
  if (limit->value != std::floor(limit->value) ||
      std::abs(limit->value) > static_cast<double>(kMostNumberLimit)) {
    limit->place.fail("a whole number of at most " + std::to_string(kMostNumberLimit) +
                      " as the limit of a number");
  }
  return NumberLimit{static_cast<std::int64_t>(limit->value), limit->is_excluded};
}

// As an included limit; exactly, also where a double is not.
std::int64_t integer_limit(const Limit& limit, bool is_least) {
  if (limit.place.value->is_number_integer()) {
    if (limit.place.value->is_number_unsigned() &&
        limit.place.value->get<std::uint64_t>() > std::uint64_t{kMostInteger}) {
      return kMostInteger + 1;
    }
    const auto value =
        std::clamp(limit.place.value->get<std::int64_t>(), -kMostInteger - 1, kMostInteger + 1);
    return value + (limit.is_excluded ? (is_least ? 1 : -1) : 0);
  }
  const double edge = is_least ? std::ceil(limit.value) : std::floor(limit.value);
  if (std::abs(edge) > static_cast<double>(kMostInteger)) {
    return edge > 0 ? kMostInteger + 1 : -kMostInteger - 1;
  }
  const bool moves = limit.is_excluded && edge == limit.value;
  return static_cast<std::int64_t>(edge) + (moves ? (is_least ? 1 : -1) : 0);
}

}  // namespace

NodeId SchemaRules::array(const SchemaPlace& place, NodeId end) {
  const std::uint32_t least = place.count("minItems", 0),
                      most = place.count("maxItems", kUnlimited);
  if (const SchemaJson* const unique = place.find("uniqueItems");
      unique != nullptr && *unique != false) {
    place.at("uniqueItems").fail("false: others are not supported");
  }
  if (place.has("items") && place.at("items").value->is_array()) {
    place.at("items").fail("a schema, and a list of them as \"prefixItems\"");
  }
  std::vector<Values> first;
  if (place.has("prefixItems")) {
    for (const SchemaPlace& item : place.list("prefixItems")) first.push_back(values(item));
  }
  const Values others = place.has("items") ? values(place.at("items")) : any_value();
  if (first.size() > most) first.resize(most);
  if (least > most) return program_.nothing();

  const auto known = static_cast<std::uint32_t>(first.size());
  const NodeId close = program_.byte(']', end);
  const NodeId closing = program_.blank(close);
  const auto rest = [](std::uint32_t count, std::uint32_t taken) {
    return count == kUnlimited ? kUnlimited : count > taken ? count - taken : 0;
  };
  const auto comma = [&](NodeId item) { return program_.byte(',', program_.blank(item)); };
  // The first item of all has no comma, so that without known ones it is not of the loop.
  const std::uint32_t before = std::max(known, 1U);
  const NodeId more = program_.loop(
      rest(least, before), rest(most, before), call(others, end),
      [&](NodeId again) { return comma(call(others, again)); }, closing);
  NodeId begin = more;
  if (known == 0) {
    begin = most == 0 ? program_.nothing() : call(others, more);
    if (least == 0) begin = program_.split(begin, close);
    return program_.byte('[', program_.blank(begin));
  }
  for (std::uint32_t i = known; i-- > 0;) {
    const NodeId item = call(first[i], begin);
    begin = i > 0 ? comma(item) : item;
    if (i >= least) begin = program_.split(begin, i > 0 ? closing : close);
  }
  return program_.byte('[', program_.blank(begin));
}

NodeId SchemaRules::object(const SchemaPlace& place, NodeId end) {
  struct Property {
    std::string name;
    Values values;
  };
  std::vector<Property> properties;
  std::set<std::u32string> names;
  const auto add = [&](const std::string& name, Values of) {
    if (!names.insert(code_points(name)).second) return false;
    properties.push_back({name, std::move(of)});
    return true;
  };
  if (place.has("properties")) {
    const SchemaPlace all = place.at("properties");
    if (!all.value->is_object()) all.fail("an object");
    for (const auto& [name, value] : all.value->items()) {
      if (name.size() > 1024) all.fail("names of at most 1024 bytes");
      add(name, values({&value, all.path + "." + name}));
    }
  }
  Values others =
      place.has("additionalProperties") ? values(place.at("additionalProperties")) : any_value();
  std::set<std::string> required;
  if (place.has("required")) {
    for (const SchemaPlace& name : place.list("required")) {
      if (!name.value->is_string() || name.value->get_ref<const std::string&>().size() > 1024) {
        name.fail("a name of at most 1024 bytes");
      }
      const auto text = name.value->get<std::string>();
      add(text, others);
      required.insert(text);
    }
  }

  const NodeId close = program_.byte('}', end);
  const auto colon = [&](const Values& of, NodeId next) {
    const NodeId value = call(of, next);
    return program_.byte(':', program_.split(program_.byte(' ', value), value));
  };
  const auto comma = [&](NodeId member) { return program_.byte(',', program_.blank(member)); };
  // `some`: what may come behind a member; `none`: behind the brace.
  const auto other = [&](NodeId next) {
    return other_string(program_, names, colon(others, next));
  };
  NodeId some = program_.blank(close), none = close;
  if (!others.empty()) {
    some = program_.star([&](NodeId again) { return comma(other(again)); }, some);
    none = program_.split(other(some), none);
  }
  for (auto property = properties.rbegin(); property != properties.rend(); ++property) {
    const NodeId member = program_.byte(
        '"', literal(program_, property->name, program_.byte('"', colon(property->values, some))));
    const NodeId next = comma(member);
    const bool is_required = required.contains(property->name);
    some = is_required ? next : program_.split(next, some);
    none = is_required ? member : program_.split(member, none);
  }
  return program_.byte('{', program_.blank(none));
}

NodeId SchemaRules::string(const SchemaPlace& place, NodeId end) {
  const std::uint32_t least = place.count("minLength", 0),
                      most = place.count("maxLength", kUnlimited);
  if (!place.has("pattern") && !place.has("format")) {
    return least > most ? program_.nothing() : any_string(program_, least, most, end);
  }
  for (const char* const other : {"minLength", "maxLength", "format"}) {
    if (place.has(other) && (place.has("pattern") || other != std::string_view("format"))) {
      place.at(other).fail("no such keyword beside \"pattern\" or \"format\": not supported");
    }
  }
  const NodeId closing = program_.byte('"', end);
  if (place.has("format")) {
    return program_.byte('"', pattern(program_, format_pattern(place), closing));
  }
  try {
    return program_.byte('"', pattern(program_, place.text("pattern"), closing));
  } catch (const Refusal&) {
    throw;
  } catch (const Error& error) {
    place.at("pattern").fail("a pattern without " + std::string(error.what()));
  }
}

NodeId SchemaRules::integers(const SchemaPlace& place, NodeId end) {
  const auto low = limit(place, "minimum", "exclusiveMinimum", true);
  const auto high = limit(place, "maximum", "exclusiveMaximum", false);
  const std::int64_t least =
      std::max(-kMostInteger, low ? integer_limit(*low, true) : -kMostInteger);
  const std::int64_t most =
      std::min(kMostInteger, high ? integer_limit(*high, false) : kMostInteger);
  return least > most ? program_.nothing() : integer(program_, least, most, end);
}

NodeId SchemaRules::numbers(const SchemaPlace& place, NodeId end) {
  const auto low = whole_limit(limit(place, "minimum", "exclusiveMinimum", true));
  const auto high = whole_limit(limit(place, "maximum", "exclusiveMaximum", false));
  return low || high ? number_between(program_, low, high, end) : number(program_, end);
}

}  // namespace memlayers::api::grammar

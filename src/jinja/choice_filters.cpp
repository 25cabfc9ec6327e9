// SPDX-License-Identifier: Apache-2.0
// Filters that apply filters or tests to each element.
#include <algorithm>
#include <array>

#include "jinja/filters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

Value use_default(Run&, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 2> kNames{"default_value", "boolean"};
  const Bound bound("default", arguments, kNames);
  if (!value.is_undefined() && !(bound.truth(1, false) && !is_true(value))) return value;
  return bound.find(0) != nullptr ? *bound.find(0) : Value(Text());
}

// The arguments behind the first ones.
Arguments behind(const Arguments& arguments, std::size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(count));
  return rest;
}

const std::string& name_at(std::string_view filter, const Arguments& arguments, std::size_t place) {
  if (place >= arguments.positional.size() || arguments.positional[place].text() == nullptr) {
    throw Problem(std::string(filter) + ": expected a name, got none");
  }
  return arguments.positional[place].text()->bytes();
}

const Value* named(const Arguments& arguments, std::string_view name) {
  const auto found = std::ranges::find(arguments.named, name, [](const auto& argument) {
    return std::string_view(argument.first.bytes());
  });
  return found == arguments.named.end() ? nullptr : &found->second;
}

Value map(Run& run, const Value& value, const Arguments& arguments) {
  Items items;
  if (!is_true(value)) return make_sequence(SequenceKind::kOnce, std::move(items));
  const Value* attribute = arguments.positional.empty() ? named(arguments, "attribute") : nullptr;
  if (attribute != nullptr) {
    const Value* otherwise = named(arguments, "default");
    const std::size_t known = otherwise != nullptr ? 2 : 1;
    if (arguments.named.size() > known)
      throw Problem("map: expected attribute and default, got another argument");
    for (const Value& item : items_of(run, value)) {
      const Value found = looked_up(run, item, *attribute);
      const bool is_missing = found.is_undefined() && otherwise != nullptr && !otherwise->is_none();
      items.push_back(is_missing ? *otherwise : found);
    }
  } else {
    const std::string& name = name_at("map", arguments, 0);
    const Arguments rest = behind(arguments, 1);
    for (const Value& item : items_of(run, value)) {
      items.push_back(apply_filter(run, name, item, rest));
    }
  }
  return make_sequence(SequenceKind::kOnce, std::move(items));
}

template <bool kOfAttribute, bool kWanted>
Value choose(Run& run, const Value& value, const Arguments& arguments) {
  constexpr std::size_t kTest = kOfAttribute ? 1 : 0;
  Items items;
  if (!is_true(value)) return make_sequence(SequenceKind::kOnce, std::move(items));
  if (kOfAttribute && arguments.positional.empty())
    throw Problem("selectattr: expected an attribute, got none");
  const bool has_test = arguments.positional.size() > kTest;
  const Arguments rest = has_test ? behind(arguments, kTest + 1) : Arguments{};
  for (const Value& item : items_of(run, value)) {
    const Value looked = kOfAttribute ? looked_up(run, item, arguments.positional[0]) : item;
    const bool is_chosen = has_test
                               ? apply_test(run, name_at("select", arguments, kTest), looked, rest)
                               : is_true(looked);
    if (is_chosen == kWanted) items.push_back(item);
  }
  return make_sequence(SequenceKind::kOnce, std::move(items));
}

constexpr std::array kFilters{Filter{"default", use_default},
                              Filter{"d", use_default},
                              Filter{"map", map},
                              Filter{"select", choose<false, true>},
                              Filter{"reject", choose<false, false>},
                              Filter{"selectattr", choose<true, true>},
                              Filter{"rejectattr", choose<true, false>}};

}  // namespace

std::span<const Filter> choice_filters() { return kFilters; }

}  // namespace memlayers::jinja

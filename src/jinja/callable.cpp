// SPDX-License-Identifier: Apache-2.0
#include "jinja/callable.h"

#include <algorithm>

#include "io/shown.h"
#include "jinja/numbers.h"
#include "jinja/operators.h"

namespace memlayers::jinja {

Bound::Bound(std::string_view function, const Arguments& arguments,
             std::span<const std::string_view> parameters)
    : function_(function), parameters_(parameters), values_(parameters.size()) {
  if (arguments.positional.size() > parameters.size()) {
    throw Problem(std::string(function) + ": expected at most " +
                  std::to_string(parameters.size()) + " arguments, got " +
                  std::to_string(arguments.positional.size()));
  }
  std::ranges::copy(arguments.positional, values_.begin());
  for (const auto& [text, value] : arguments.named) {
    const std::string& name = text.bytes();
    const auto found = std::ranges::find(parameters, name);
    const auto place = static_cast<std::size_t>(found - parameters.begin());
    if (found == parameters.end()) {
      throw Problem(std::string(function) + ": unknown argument " + io::quote(name));
    }
    if (values_[place]) {
      throw Problem(std::string(function) + ": expected argument " + io::quote(name) +
                    " once, got it twice");
    }
    values_[place] = value;
  }
}

void Bound::fail(std::size_t parameter, std::string_view expected) const {
  throw Problem(std::string(function_) + ": " + std::string(parameters_[parameter]) +
                ": expected " + std::string(expected) + ", got " +
                (find(parameter) != nullptr ? std::string(find(parameter)->kind()) : "nothing"));
}

const Value& Bound::at(std::size_t parameter) const {
  const Value* value = find(parameter);
  if (value == nullptr) fail(parameter, "an argument");
  return *value;
}

bool Bound::truth(std::size_t parameter, bool otherwise) const {
  const Value* value = find(parameter);
  return value != nullptr ? is_true(*value) : otherwise;
}

std::int64_t Bound::integer(std::size_t parameter, std::int64_t otherwise) const {
  return values_[parameter] ? integer(parameter) : otherwise;
}

std::int64_t Bound::integer(std::size_t parameter) const {
  const Value* value = find(parameter);
  const auto number = value != nullptr ? to_integer(*value) : std::nullopt;
  if (!number) fail(parameter, "an integer");
  return *number;
}

const Text& Bound::text(std::size_t parameter) const {
  const Value* value = find(parameter);
  const Text* text = value != nullptr ? value->text() : nullptr;
  if (text == nullptr) fail(parameter, "a string");
  return *text;
}

}  // namespace memlayers::jinja

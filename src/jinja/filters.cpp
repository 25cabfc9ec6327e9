// SPDX-License-Identifier: Apache-2.0
#include "jinja/filters.h"

#include <algorithm>
#include <array>

#include "io/shown.h"
#include "jinja/characters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

const Filter* find_filter(std::string_view name) {
  for (const auto filters :
       {text_filters(), number_filters(), sequence_filters(), choice_filters()}) {
    const auto found = std::ranges::find(filters, name, &Filter::name);
    if (found != filters.end()) return &*found;
  }
  return nullptr;
}

}  // namespace

bool has_filter(std::string_view name) { return find_filter(name) != nullptr; }

Value apply_filter(Run& run, std::string_view name, const Value& value,
                   const Arguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr) throw Problem("unknown filter " + io::quote(name));
  return filter->run(run, value, arguments);
}

Value looked_up(Run& run, Value value, const Value& path) {
  if (path.is_none()) return value;
  if (path.text() == nullptr) return subscript(run, value, path);
  std::string_view rest = path.text()->bytes();
  while (true) {
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    const std::string_view part = rest.substr(0, dot);
    const bool is_number =
        !part.empty() && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    value = subscript(
        run, value, is_number ? Value(read_integer(part, 10).value_or(0)) : Value::own_text(part));
    if (dot == rest.size()) return value;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace memlayers::jinja

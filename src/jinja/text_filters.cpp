// SPDX-License-Identifier: Apache-2.0
// Filters of strings.
#include <algorithm>
#include <array>

#include "io/shown.h"
#include "jinja/characters.h"
#include "jinja/filters.h"
#include "jinja/format.h"
#include "jinja/json_text.h"
#include "jinja/methods.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

void expect_none(const Arguments& arguments) {
  if (!arguments.empty()) throw Problem("expected no arguments of this filter, got some");
}

template <Casing kCasing>
Value change_case(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  const Text text = str_of(run, value);
  run.budget.spend(text.size());
  return Value(with_case(text, kCasing));
}

// Each word behind a space, a hyphen or an opening bracket; not as str.title() does it.
Value title(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  const Text text = str_of(run, value);
  run.budget.spend(text.size());
  Text result;
  std::size_t word = 0;
  const auto put = [&](std::size_t end) {
    if (word < end) {
      const std::size_t first =
          word + io::decode_utf8(std::string_view(text.bytes()).substr(word)).bytes;
      result.append(with_case(text.part(word, first), Casing::kUpper));
      result.append(with_case(text.part(first, end), Casing::kLower));
    }
    word = end;
  };
  for_each_character(text.bytes(), [&](char32_t code, std::size_t begin, std::size_t end) {
    const bool is_border =
        is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
    if (!is_border) return;
    put(begin);
    result.append(text, begin, end);
    word = end;
  });
  put(text.size());
  return Value(std::move(result));
}

Value trim(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"chars"};
  const Bound bound("trim", arguments, kNames);
  return Value(trimmed(run, str_of(run, value), bound.find(0), true, true));
}

Value replace(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 3> kNames{"old", "new", "count"};
  const Bound bound("replace", arguments, kNames);
  const std::int64_t most = bound.is_given(2) ? bound.integer(2) : -1;
  return Value(
      replaced(run, str_of(run, value), str_of(run, bound.at(0)), str_of(run, bound.at(1)), most));
}

Value join(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 2> kNames{"d", "attribute"};
  const Bound bound("join", arguments, kNames);
  Items items = items_of(run, value);
  if (bound.is_given(1)) {
    for (Value& item : items) item = looked_up(run, std::move(item), bound.at(1));
  }
  const Text separator = bound.find(0) != nullptr ? str_of(run, *bound.find(0)) : Text();
  return Value(joined(run, separator, items, true));
}

Value indent(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 3> kNames{"width", "first", "blank"};
  const Bound bound("indent", arguments, kNames);
  if (value.is_undefined()) throw Problem(value.why_undefined());
  if (value.text() == nullptr) {
    throw Problem("indent: expected a string, got " + std::string(value.kind()));
  }
  Text margin(std::string(4, ' '), true);
  if (bound.find(0) != nullptr && bound.find(0)->text() != nullptr) {
    margin = bound.text(0);
  } else {
    margin = *multiplied(run, Value::own_text(" "), bound.integer(0, 4)).text();
  }
  Text whole = *value.text();
  whole.append("\n", true);
  const bool indents_blank = bound.truth(2, false);
  Text result;
  if (bound.truth(1, false)) result.append(margin);
  bool is_first = true;
  for (const Text& line : lines_of(run, whole, false)) {
    if (!is_first) result.append("\n", true);
    run.budget.spend_text(margin.size() + line.size(), result.size());
    if (!is_first && (indents_blank || !line.empty())) result.append(margin);
    result.append(line);
    is_first = false;
  }
  return Value(std::move(result));
}

Value as_string(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  if (value.text() != nullptr) return value;
  return Value(str_of(run, value));
}

Value mark_safe(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  Text text = str_of(run, value);
  text.is_safe = true;
  return Value(std::move(text));
}

Value escape(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  if (value.text() != nullptr && value.text()->is_safe) return value;
  return Value(escaped(run, str_of(run, value)));
}

Value force_escape(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  return Value(escaped(run, str_of(run, value)));
}

Value format(Run& run, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    throw Problem("format: expected arguments all with or all without names, got both");
  }
  Dict named;
  for (const auto& [name, argument] : arguments.named) named.set(Value(name), argument);
  return Value(printf_text(
      run, str_of(run, value),
      arguments.named.empty() ? make_tuple(arguments.positional) : make_dict(std::move(named))));
}

Value center(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 1> kNames{"width"};
  const Bound bound("center", arguments, kNames);
  return Value(centered(run, str_of(run, value), bound.integer(0, 80)));
}

Value truncate(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 4> kNames{"length", "killwords", "end", "leeway"};
  const Bound bound("truncate", arguments, kNames);
  const Text end = bound.find(2) != nullptr ? bound.text(2) : Text("...", true);
  const auto end_count = static_cast<std::int64_t>(count_characters(end.bytes()));
  const std::int64_t length = bound.integer(0, 255);
  const std::int64_t leeway = bound.is_given(3) ? bound.integer(3) : 5;
  if (length < end_count || leeway < 0) {
    throw Problem("truncate: expected a length that the end fits into and a leeway, got less");
  }
  const auto count = static_cast<std::int64_t>(length_of(value));
  if (count <= length || count - length <= leeway) return value;
  if (value.text() == nullptr) {
    throw Problem("truncate: expected a string, got " + std::string(value.kind()));
  }
  const Text& text = *value.text();
  run.budget.spend_text(text.size(), end.size());
  std::size_t stop = byte_of(text.bytes(), static_cast<std::size_t>(length - end_count));
  if (!bound.truth(1, false) && stop > 0) {
    const std::size_t space = text.bytes().rfind(' ', stop - 1);
    if (space != std::string::npos) stop = space;
  }
  Text result = text.part(0, stop);
  result.append(end);
  return Value(std::move(result));
}

Value wordcount(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  const Text text = str_of(run, value);
  run.budget.spend(text.size());
  std::int64_t count = 0;
  bool in_word = false;
  for_each_character(text.bytes(), [&](char32_t code, std::size_t, std::size_t) {
    const bool is_word = is_letter(code) || is_digit(code) || code == '_';
    count += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  });
  return Value(count);
}

void append_quoted(Run& run, Text& to, const Text& text, bool is_of_query) {
  for_each_character(text.bytes(), [&](char32_t, std::size_t begin, std::size_t end) {
    run.budget.spend_text(3 * (end - begin), to.size());
    for (std::size_t at = begin; at < end; ++at) {
      const char c = text.bytes()[at];
      const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-' ||
                            c == '~' || (c == '/' && !is_of_query);
      constexpr std::string_view kHex = "0123456789ABCDEF";
      const auto byte = static_cast<unsigned char>(c);
      const std::array<char, 3> quoted{'%', kHex[byte >> 4], kHex[byte & 15]};
      const std::string_view made = is_plain                  ? std::string_view(&c, 1)
                                    : c == ' ' && is_of_query ? "+"
                                                              : std::string_view(quoted.data(), 3);
      to.append(made, text.is_template_at(at));
    }
  });
}

Value urlencode(Run& run, const Value& value, const Arguments& arguments) {
  expect_none(arguments);
  Text result;
  if (value.text() != nullptr || !is_iterable(value)) {
    append_quoted(run, result, str_of(run, value), false);
    return Value(std::move(result));
  }
  Items pairs;
  if (value.dict() != nullptr) {
    for (const auto& [key, member] : value.dict()->entries()) {
      pairs.push_back(make_tuple({key, member}));
    }
  } else {
    pairs = items_of(run, value);
  }
  for (const Value& pair : pairs) {
    const Items both = items_of(run, pair);
    if (both.size() != 2) throw Problem("urlencode: expected pairs, got something else");
    if (!result.empty()) result.append("&", true);
    append_quoted(run, result, str_of(run, both[0]), true);
    result.append("=", true);
    append_quoted(run, result, str_of(run, both[1]), true);
  }
  return Value(std::move(result));
}

Value tojson(Run& run, const Value& value, const Arguments& arguments) {
  static constexpr std::array<std::string_view, 4> kNames{"ensure_ascii", "indent", "separators",
                                                          "sort_keys"};
  const Bound bound("tojson", arguments, kNames);
  JsonOptions options{.only_ascii = bound.truth(0, false), .sorts_keys = bound.truth(3, false)};
  if (bound.is_given(1)) {
    const Value& wanted = bound.at(1);
    const Value spaces =
        wanted.text() != nullptr ? wanted : multiplied(run, Value::own_text(" "), bound.integer(1));
    if (spaces.text() != nullptr) options.indent = *spaces.text();
    options.item_separator = Text(",", true);
  }
  if (bound.is_given(2)) {
    const Items both = items_of(run, bound.at(2));
    if (both.size() != 2 || both[0].text() == nullptr || both[1].text() == nullptr) {
      throw Problem("tojson: separators: expected two strings, got something else");
    }
    options.item_separator = *both[0].text();
    options.key_separator = *both[1].text();
  }
  return Value(json_text(run, value, options));
}

constexpr std::array kFilters{Filter{"upper", change_case<Casing::kUpper>},
                              Filter{"lower", change_case<Casing::kLower>},
                              Filter{"capitalize", change_case<Casing::kCapitalize>},
                              Filter{"title", title},
                              Filter{"trim", trim},
                              Filter{"replace", replace},
                              Filter{"join", join},
                              Filter{"indent", indent},
                              Filter{"string", as_string},
                              Filter{"safe", mark_safe},
                              Filter{"escape", escape},
                              Filter{"e", escape},
                              Filter{"forceescape", force_escape},
                              Filter{"format", format},
                              Filter{"center", center},
                              Filter{"truncate", truncate},
                              Filter{"wordcount", wordcount},
                              Filter{"urlencode", urlencode},
                              Filter{"tojson", tojson}};

}  // namespace

std::span<const Filter> text_filters() { return kFilters; }

}  // namespace memlayers::jinja

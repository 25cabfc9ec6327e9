// SPDX-License-Identifier: Apache-2.0
// Methods of strings.
#include "jinja/text_methods.h"

#include <algorithm>
#include <array>

#include "jinja/characters.h"
#include "jinja/format.h"
#include "jinja/methods.h"
#include "jinja/operators.h"
#include "jinja/split.h"

namespace memlayers::jinja {
namespace {

using Names1 = std::array<std::string_view, 1>;
using Names2 = std::array<std::string_view, 2>;
using Names3 = std::array<std::string_view, 3>;

// Python's of C take no names.
void expect_positional(std::string_view name, const Arguments& arguments) {
  if (!arguments.named.empty()) {
    throw Problem(std::string(name) + ": expected no named arguments, got one");
  }
}

template <bool kLeft, bool kRight>
Value strip(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"chars"};
  expect_positional("strip", arguments);
  const Bound bound("strip", arguments, kNames);
  return Value(trimmed(run, *self.text(), bound.find(0), kLeft, kRight));
}

template <bool kFromEnd>
Value split(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names2 kNames{"sep", "maxsplit"};
  const Bound bound(kFromEnd ? "rsplit" : "split", arguments, kNames);
  Items parts;
  const Text* separator = bound.is_given(0) ? &bound.text(0) : nullptr;
  for (Text& part : split_text(run, *self.text(), separator, bound.integer(1, -1), kFromEnd)) {
    parts.emplace_back(std::move(part));
  }
  return make_list(std::move(parts));
}

Value splitlines(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"keepends"};
  const Bound bound("splitlines", arguments, kNames);
  Items parts;
  for (Text& line : lines_of(run, *self.text(), bound.truth(0, false))) {
    parts.emplace_back(std::move(line));
  }
  return make_list(std::move(parts));
}

// The part of a text that the arguments `start` and `end` name, in bytes.
std::pair<std::size_t, std::size_t> range_of(Run& run, const Text& text, const Bound& bound) {
  run.budget.spend(text.size() / 16 + 1);
  const auto count = static_cast<std::int64_t>(count_characters(text.bytes()));
  const auto place = [&](std::size_t parameter, std::int64_t otherwise) {
    std::int64_t at = bound.is_given(parameter) ? bound.integer(parameter) : otherwise;
    if (at < 0) at = std::max<std::int64_t>(0, at + count);
    return at;
  };
  const std::int64_t start = place(1, 0), end = std::min(place(2, count), count);
  if (start > end) return {1, 0};  // nothing lies there, not even nothing
  return {byte_of(text.bytes(), static_cast<std::size_t>(start)),
          byte_of(text.bytes(), static_cast<std::size_t>(end))};
}

template <bool kAtEnd>
Value starts_or_ends(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names3 kNames{"prefix", "start", "end"};
  expect_positional("startswith", arguments);
  const Bound bound(kAtEnd ? "endswith" : "startswith", arguments, kNames);
  const auto [begin, end] = range_of(run, *self.text(), bound);
  if (begin > end) return Value(false);
  const std::string_view part = std::string_view(self.text()->bytes()).substr(begin, end - begin);
  const auto fits = [&](const Value& value) {
    if (value.text() == nullptr) {
      throw Problem("expected a string to begin or end with, got " + std::string(value.kind()));
    }
    const std::string& edge = value.text()->bytes();
    return kAtEnd ? part.ends_with(edge) : part.starts_with(edge);
  };
  const Value& edge = bound.at(0);
  if (edge.is_tuple()) return Value(std::ranges::any_of(edge.sequence()->items, fits));
  return Value(fits(edge));
}

template <bool kFromEnd, bool kMustBe>
Value find(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names3 kNames{"sub", "start", "end"};
  expect_positional("find", arguments);
  const Bound bound("find", arguments, kNames);
  const auto [begin, end] = range_of(run, *self.text(), bound);
  const Text& part = bound.text(0);
  run.budget.spend((self.text()->size() + part.size()) / 16 + 1);
  const auto at = begin > end ? std::nullopt
                              : place_of(self.text()->bytes(), part.bytes(), begin, end, kFromEnd);
  if (at) return Value(count_characters(std::string_view(self.text()->bytes()).substr(0, *at)));
  if (kMustBe) throw Problem("index: expected a part of the string, got something else");
  return Value(std::int64_t{-1});
}

Value count(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names3 kNames{"sub", "start", "end"};
  expect_positional("count", arguments);
  const Bound bound("count", arguments, kNames);
  const auto [begin, end] = range_of(run, *self.text(), bound);
  const std::string& part = bound.text(0).bytes();
  const std::string& text = self.text()->bytes();
  run.budget.spend((text.size() + part.size()) / 16 + 1);
  if (begin > end) return Value(std::int64_t{0});
  if (part.empty()) {
    return Value(count_characters(std::string_view(text).substr(begin, end - begin)) + 1);
  }
  std::int64_t found = 0;
  for (auto at = place_of(text, part, begin, end, false); at;
       at = place_of(text, part, *at + part.size(), end, false)) {
    ++found;
  }
  return Value(found);
}

Value replace(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names3 kNames{"old", "new", "count"};
  expect_positional("replace", arguments);
  const Bound bound("replace", arguments, kNames);
  return Value(replaced(run, *self.text(), bound.text(0), bound.text(1), bound.integer(2, -1)));
}

template <bool kAtEnd>
Value remove(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"prefix"};
  expect_positional("removeprefix", arguments);
  const Bound bound(kAtEnd ? "removesuffix" : "removeprefix", arguments, kNames);
  const Text& text = *self.text();
  const std::string& edge = bound.text(0).bytes();
  run.budget.spend_text(text.size());
  if (kAtEnd ? !text.bytes().ends_with(edge) : !text.bytes().starts_with(edge)) {
    return Value(text.part(0, text.size()));
  }
  return Value(kAtEnd ? text.part(0, text.size() - edge.size())
                      : text.part(edge.size(), text.size()));
}

template <bool kFromEnd>
Value partition(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"sep"};
  expect_positional("partition", arguments);
  const Bound bound("partition", arguments, kNames);
  const Text &text = *self.text(), &separator = bound.text(0);
  if (separator.empty()) throw Problem("partition: expected a separator, got an empty one");
  run.budget.spend_text(text.size());
  const auto at = place_of(text.bytes(), separator.bytes(), 0, text.size(), kFromEnd);
  const auto part = [&](std::size_t begin, std::size_t end) {
    return Value(text.part(begin, end));
  };
  if (!at) {
    if (kFromEnd) return make_tuple({Value(Text()), Value(Text()), part(0, text.size())});
    return make_tuple({part(0, text.size()), Value(Text()), Value(Text())});
  }
  const std::size_t end = *at + separator.size();
  return make_tuple({part(0, *at), part(*at, end), part(end, text.size())});
}

Value join(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"iterable"};
  expect_positional("join", arguments);
  const Bound bound("join", arguments, kNames);
  return Value(joined(run, *self.text(), items_of(run, bound.at(0)), false));
}

template <Casing kCasing>
Value change_case(Run& run, const Value& self, const Arguments& arguments) {
  if (!arguments.empty()) throw Problem("expected no arguments of a method of case, got some");
  run.budget.spend(self.text()->size());
  return Value(with_case(*self.text(), kCasing));
}

// Whether all characters are of a kind, of at least one.
template <bool (*kIs)(char32_t)>
Value all_are(Run& run, const Value& self, const Arguments&) {
  run.budget.spend(self.text()->size());
  bool all = !self.text()->empty();
  for_each_character(self.text()->bytes(),
                     [&](char32_t code, std::size_t, std::size_t) { all = all && kIs(code); });
  return Value(all);
}

bool is_letter_or_digit(char32_t code) { return is_letter(code) || is_digit(code); }

template <bool kUpper>
Value is_of_case(Run& run, const Value& self, const Arguments&) {
  run.budget.spend(self.text()->size());
  return Value(is_all_of_case(self.text()->bytes(), kUpper));
}

template <char kAlign>
Value pad(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names2 kNames{"width", "fillchar"};
  expect_positional("ljust", arguments);
  const Bound bound("ljust", arguments, kNames);
  Layout layout;
  layout.align = kAlign;
  layout.width = static_cast<std::size_t>(std::max<std::int64_t>(0, bound.integer(0)));
  if (bound.is_given(1)) layout.fill = bound.text(1).bytes();
  if (count_characters(layout.fill) != 1)
    throw Problem("ljust: expected one character to fill with, got more or none");
  return Value(laid_out(run, self, layout));
}

Value center(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"width"};
  const Bound bound("center", arguments, kNames);
  return Value(centered(run, *self.text(), bound.integer(0)));
}

Value zfill(Run& run, const Value& self, const Arguments& arguments) {
  static constexpr Names1 kNames{"width"};
  const Bound bound("zfill", arguments, kNames);
  const Text& text = *self.text();
  const bool has_sign = text.bytes().starts_with('-') || text.bytes().starts_with('+');
  Layout layout;
  layout.align = '>';
  layout.fill = "0";
  const std::int64_t width = bound.integer(0) - (has_sign ? 1 : 0);
  layout.width = static_cast<std::size_t>(std::max<std::int64_t>(0, width));
  Text result = text.part(0, has_sign ? 1 : 0);
  result.append(laid_out(run, Value(text.part(has_sign ? 1 : 0, text.size())), layout));
  return Value(std::move(result));
}

Value format(Run& run, const Value& self, const Arguments& arguments) {
  return Value(format_text(run, *self.text(), arguments));
}

constexpr std::array kMethods{Method{"strip", strip<true, true>},
                              Method{"lstrip", strip<true, false>},
                              Method{"rstrip", strip<false, true>},
                              Method{"split", split<false>},
                              Method{"rsplit", split<true>},
                              Method{"splitlines", splitlines},
                              Method{"startswith", starts_or_ends<false>},
                              Method{"endswith", starts_or_ends<true>},
                              Method{"find", find<false, false>},
                              Method{"rfind", find<true, false>},
                              Method{"index", find<false, true>},
                              Method{"rindex", find<true, true>},
                              Method{"count", count},
                              Method{"replace", replace},
                              Method{"removeprefix", remove<false>},
                              Method{"removesuffix", remove<true>},
                              Method{"partition", partition<false>},
                              Method{"rpartition", partition<true>},
                              Method{"join", join},
                              Method{"upper", change_case<Casing::kUpper>},
                              Method{"lower", change_case<Casing::kLower>},
                              Method{"capitalize", change_case<Casing::kCapitalize>},
                              Method{"title", change_case<Casing::kTitle>},
                              Method{"swapcase", change_case<Casing::kSwap>},
                              Method{"isspace", all_are<is_space>},
                              Method{"isalpha", all_are<is_letter>},
                              Method{"isdigit", all_are<is_digit>},
                              Method{"isdecimal", all_are<is_decimal>},
                              Method{"isnumeric", all_are<is_digit>},
                              Method{"isalnum", all_are<is_letter_or_digit>},
                              Method{"islower", is_of_case<false>},
                              Method{"isupper", is_of_case<true>},
                              Method{"ljust", pad<'<'>},
                              Method{"rjust", pad<'>'>},
                              Method{"center", center},
                              Method{"zfill", zfill},
                              Method{"format", format}};

}  // namespace

std::span<const Method> text_methods() { return kMethods; }

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
#include "jinja/format.h"

#include <algorithm>
#include <charconv>

#include "io/shown.h"
#include "jinja/characters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

// A reader of the bytes of a pattern.
class Pattern {
 public:
  explicit Pattern(const std::string& text) : text_(text) {}
  bool is_at_end() const { return at_ == text_.size(); }
  std::size_t at() const { return at_; }
  char peek() const { return is_at_end() ? '\0' : text_[at_]; }
  char next() {
    if (is_at_end()) throw Problem("expected a whole pattern, got " + io::quote(text_));
    return text_[at_++];
  }
  bool skip(char c) {
    if (is_at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::optional<std::size_t> number() {
    std::size_t value = 0;
    const auto [end, error] =
        std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error == std::errc::invalid_argument) return std::nullopt;
    constexpr std::size_t kMost = 1 << 30;
    if (error != std::errc() || value > kMost) throw Problem("expected a width, got one too large");
    at_ = static_cast<std::size_t>(end - text_.data());
    return value;
  }
  // Up to one of these characters, which is not taken.
  std::string_view until(std::string_view ends) {
    const std::size_t end = std::min(text_.find_first_of(ends, at_), text_.size());
    const std::string_view part = std::string_view(text_).substr(at_, end - at_);
    at_ = end;
    return part;
  }

 private:
  const std::string& text_;
  std::size_t at_ = 0;
};

// The values of a pattern of "%", one after the other.
class Values {
 public:
  explicit Values(const Value& values) : values_(values) {}
  const Value& next() {
    if (!values_.is_tuple()) {
      if (taken_++ > 0) throw Problem("expected as many values as the pattern asks for, got 1");
      return values_;
    }
    const Items& items = values_.sequence()->items;
    if (taken_ == items.size()) {
      throw Problem("expected as many values as the pattern asks for, got " +
                    std::to_string(items.size()));
    }
    return items[taken_++];
  }
  const Value& named(std::string_view name) {
    if (values_.dict() == nullptr) {
      throw Problem("expected a dict for a pattern with names, got " + std::string(values_.kind()));
    }
    const Value* found = values_.dict()->find(name);
    if (found == nullptr)
      throw Problem("the pattern asks for " + io::quote(name) + ", which is not there");
    has_names_ = true;
    return *found;
  }
  void finish() const {
    // Python takes them for mappings, of which the pattern need not ask for anything.
    const bool is_mapping =
        values_.dict() != nullptr || values_.is_undefined() ||
        (values_.sequence() != nullptr &&
         (values_.is_list() || values_.sequence()->kind == SequenceKind::kRange));
    const std::size_t count = values_.is_tuple() ? values_.sequence()->items.size() : 1;
    if (has_names_ || (is_mapping && taken_ == 0) || taken_ == count) return;
    throw Problem("expected as many values as the pattern asks for, got " + std::to_string(count));
  }

 private:
  const Value& values_;
  std::size_t taken_ = 0;
  bool has_names_ = false;
};

Value as_integer(const Value& value) {
  if (value.real() == nullptr) return value;
  const auto whole = truncated(*value.real());
  if (!whole) throw Problem("expected an integer that 64 bits hold, got a float");
  return Value(*whole);
}

Text one_of_printf(Run& run, Pattern& pattern, Values& values) {
  std::optional<Value> named;
  if (pattern.skip('(')) {
    const std::string_view name = pattern.until(")");
    pattern.next();
    named = values.named(name);
  }
  Layout layout;
  layout.align = '>';
  for (bool goes_on = true; goes_on;) {
    switch (pattern.peek()) {
      case '-':
        layout.align = '<';
        break;
      case '+':
        layout.sign = '+';
        break;
      case ' ':
        layout.sign = layout.sign == '+' ? '+' : ' ';
        break;
      case '0':
        layout.is_zero_filled = true;
        break;
      case '#':
        layout.is_alternate = true;
        break;
      default:
        goes_on = false;
    }
    if (goes_on) pattern.next();
  }
  layout.width = pattern.number().value_or(0);
  if (pattern.skip('.')) layout.precision = static_cast<int>(pattern.number().value_or(0));
  while (pattern.peek() == 'l' || pattern.peek() == 'h' || pattern.peek() == 'L') pattern.next();
  const char type = pattern.next();
  if (type == '%') return Text("%", true);
  const Value& value = named ? *named : values.next();
  layout.type = type;
  const bool is_number = std::string_view("diuxXoeEfFgG").find(type) != std::string_view::npos;
  if (is_number && !value.is_number()) {
    throw Problem("expected a number for %" + std::string(1, type) + ", got " +
                  std::string(value.kind()));
  }
  if (!is_number || layout.align == '<') layout.is_zero_filled = false;
  if (is_number && layout.is_zero_filled) layout.align = 0;
  switch (type) {
    case 'd':
    case 'i':
    case 'u':
      layout.type = 'd';
      if (layout.precision) throw Problem("expected %d without a precision, got one");
      return laid_out(run, as_integer(value), layout);
    case 's':
      return laid_out(run, value, layout);
    case 'r':
      layout.type = 's';
      return laid_out(run, Value(repr_of(run, value)), layout);
    case 'x':
    case 'X':
    case 'o':
      if (value.real() != nullptr) throw Problem("expected an integer, got a float");
      [[fallthrough]];
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      return laid_out(run, value, layout);
    default:
      throw Problem("unknown format " + io::quote("%" + std::string(1, type)));
  }
}

Layout read_layout(std::string_view spec) {
  const std::string text(spec);
  Pattern pattern(text);
  Layout layout;
  if (!spec.empty()) {
    const std::size_t first = io::decode_utf8(spec).bytes;
    const auto is_align = [&](std::size_t at) {
      return at < spec.size() && std::string_view("<>^=").find(spec[at]) != std::string_view::npos;
    };
    if (is_align(first)) {
      layout.fill = spec.substr(0, first);
      for (std::size_t i = 0; i < first; ++i) pattern.next();
      layout.align = pattern.next();
    } else if (is_align(0)) {
      layout.align = pattern.next();
    }
  }
  if (pattern.peek() == '+' || pattern.peek() == '-' || pattern.peek() == ' ') {
    layout.sign = pattern.next();
  }
  layout.is_alternate = pattern.skip('#');
  layout.is_zero_filled = pattern.skip('0');
  layout.width = pattern.number().value_or(0);
  layout.groups = pattern.skip(',');
  if (pattern.skip('.')) {
    const auto precision = pattern.number();
    if (!precision) throw Problem("expected a precision behind \".\", got none");
    layout.precision = static_cast<int>(*precision);
  }
  if (!pattern.is_at_end()) layout.type = pattern.next();
  if (!pattern.is_at_end() ||
      std::string_view("\0sdxXobeEfFgG%n", 15).find(layout.type) == std::string_view::npos) {
    throw Problem("unknown format " + io::quote(spec));
  }
  return layout;
}

// How the fields of a pattern have counted so far.
struct Counting {
  std::size_t next = 0;
  bool has_numbers = false;
};

// "0", "name", "0.key[3]": an argument, and what is inside.
Value field(Run& run, std::string_view name, const Arguments& arguments, Counting& counting) {
  std::size_t end = std::min(name.find_first_of(".["), name.size());
  const std::string_view first = name.substr(0, end);
  Value value;
  const auto index = first.empty() ? std::optional(static_cast<std::int64_t>(counting.next++))
                                   : read_integer(first, 10);
  counting.has_numbers = counting.has_numbers || (index && !first.empty());
  if (counting.has_numbers && counting.next > 0) {
    throw Problem("format: expected fields all with or all without numbers, got both");
  }
  if (index && *index >= 0) {
    if (static_cast<std::size_t>(*index) >= arguments.positional.size()) {
      throw Problem("format: expected an argument number " + std::to_string(*index) + ", got " +
                    std::to_string(arguments.positional.size()) + " arguments");
    }
    value = arguments.positional[static_cast<std::size_t>(*index)];
  } else {
    const auto found = std::ranges::find(
        arguments.named, first, [](const auto& a) { return std::string_view(a.first.bytes()); });
    if (found == arguments.named.end()) {
      throw Problem("format: expected an argument " + io::quote(first) + ", got none");
    }
    value = found->second;
  }
  while (end < name.size()) {
    const bool is_element = name[end] == '[';
    const std::size_t begin = end + 1;
    end =
        std::min(is_element ? name.find(']', begin) : name.find_first_of(".[", begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (!is_element) {
      value = attribute(run, value, part);
    } else {
      const auto place = read_integer(part, 10);
      value = subscript(run, value, place ? Value(*place) : Value::own_text(part));
      if (end < name.size()) ++end;
    }
  }
  return value;
}

}  // namespace

Text printf_text(Run& run, const Text& pattern, const Value& given) {
  Pattern reader(pattern.bytes());
  Values values(given);
  Text result;
  while (true) {
    const std::size_t begin = reader.at();
    reader.until("%");
    run.budget.spend_text(reader.at() - begin, result.size());
    result.append(pattern, begin, reader.at());
    if (reader.is_at_end()) break;
    reader.next();
    result.append(one_of_printf(run, reader, values));
  }
  values.finish();
  return result;
}

Text format_text(Run& run, const Text& pattern, const Arguments& arguments) {
  Pattern reader(pattern.bytes());
  Text result;
  Counting counting;
  while (true) {
    const std::size_t begin = reader.at();
    reader.until("{}");
    run.budget.spend_text(reader.at() - begin, result.size());
    result.append(pattern, begin, reader.at());
    if (reader.is_at_end()) return result;
    const char brace = reader.next();
    if (reader.skip(brace)) {
      result.append(pattern, reader.at() - 1, reader.at());
      continue;
    }
    if (brace == '}') throw Problem("format: expected \"{\" before \"}\", got none");
    const std::string_view name = reader.until("!:{}");
    Value value = field(run, name, arguments, counting);
    if (reader.skip('!')) {
      const char conversion = reader.next();
      if (conversion != 's' && conversion != 'r') {
        throw Problem("format: expected !s or !r, got " +
                      io::quote(std::string_view(&conversion, 1)));
      }
      value = Value(conversion == 's' ? str_of(run, value) : repr_of(run, value));
    }
    const std::string_view spec = reader.skip(':') ? reader.until("{}") : std::string_view();
    if (reader.next() != '}')
      throw Problem("format: expected fields that are not nested, got one inside another");
    if (spec.empty()) {
      result.append(str_of(run, value));
      continue;
    }
    if (!value.is_number() && value.text() == nullptr) {
      throw Problem("format: expected a string or a number for " + io::quote(spec) + ", got " +
                    std::string(value.kind()));
    }
    result.append(laid_out(run, value, read_layout(spec)));
  }
}

Text escaped(Run& run, const Text& text) {
  Text result;
  run.budget.spend_text(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.bytes().find_first_of("&<>'\"", begin), text.size());
    result.append(text, begin, end);
    if (end == text.size()) break;
    const char c = text.bytes()[end];
    run.budget.spend_text(5, result.size());
    result.append(c == '&'   ? "&amp;"
                  : c == '<' ? "&lt;"
                  : c == '>' ? "&gt;"
                  : c == '"' ? "&#34;"
                             : "&#39;",
                  text.is_template_at(end));
    begin = end + 1;
  }
  result.is_safe = true;
  return result;
}

}  // namespace memlayers::jinja

// SPDX-License-Identifier: Apache-2.0
// Values as Python writes them.
#include <array>
#include <cstdio>

#include "jinja/callable.h"
#include "jinja/characters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

Text own(std::string_view text) { return {text, true}; }

std::string escape_of(char32_t code) {
  std::array<char, 16> buffer;
  const char* pattern = code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x";
  std::snprintf(buffer.data(), buffer.size(), pattern, static_cast<unsigned>(code));
  return buffer.data();
}

Text quoted(Run& run, const Text& text) {
  run.budget.spend_text(text.size());
  const bool has_single = text.bytes().find('\'') != std::string::npos;
  const char quote = has_single && text.bytes().find('"') == std::string::npos ? '"' : '\'';
  Text result(std::string_view(&quote, 1), true);
  for_each_character(text.bytes(), [&](char32_t code, std::size_t begin, std::size_t end) {
    const bool is_template = text.is_template_at(begin);
    if (code == static_cast<unsigned char>(quote) || code == '\\') {
      result.append("\\", is_template);
      result.append(text, begin, end);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      result.append(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t", is_template);
    } else if (is_printable(code)) {
      result.append(text, begin, end);
    } else {
      result.append(escape_of(code), is_template);
    }
  });
  result.append(std::string_view(&quote, 1), true);
  return result;
}

void append_items(Run& run, Text& text, const Items& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text.append(", ", true);
    const Text item = repr_of(run, items[i]);
    run.budget.spend_text(item.size(), text.size());
    text.append(item);
  }
}

Text of_sequence(Run& run, const Sequence& sequence) {
  Text text;
  const auto between = [&](std::string_view begin, std::string_view end) {
    text.append(begin, true);
    append_items(run, text, sequence.items);
    text.append(end, true);
    return std::move(text);
  };
  switch (sequence.kind) {
    case SequenceKind::kList:
      return between("[", "]");
    case SequenceKind::kTuple:
      return between("(", sequence.items.size() == 1 ? ",)" : ")");
    case SequenceKind::kKeys:
      return between("dict_keys([", "])");
    case SequenceKind::kValues:
      return between("dict_values([", "])");
    case SequenceKind::kPairs:
      return between("dict_items([", "])");
    case SequenceKind::kRange: {
      const auto [start, stop, step] = sequence.range;
      std::string range = "range(" + std::to_string(start) + ", " + std::to_string(stop);
      if (step != 1) range += ", " + std::to_string(step);
      return own(range + ")");
    }
    case SequenceKind::kOnce:
      break;
  }
  throw Problem("cannot write a generator as text; |list or |join makes a list or a text of it");
}

Text of_dict(Run& run, const Dict& dict) {
  Text text = own("{");
  bool is_first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!is_first) text.append(", ", true);
    is_first = false;
    const Text name = repr_of(run, key), member = repr_of(run, value);
    run.budget.spend_text(name.size() + member.size(), text.size());
    text.append(name);
    text.append(": ", true);
    text.append(member);
  }
  text.append("}", true);
  return text;
}

}  // namespace

Text repr_of(Run& run, const Value& value) {
  run.budget.spend(1);
  if (value.text() != nullptr) return quoted(run, *value.text());
  if (value.is_undefined()) return own("Undefined");
  if (value.is_none()) return own("None");
  if (const bool* truth = value.boolean()) return own(*truth ? "True" : "False");
  if (const std::int64_t* whole = value.integer()) return own(std::to_string(*whole));
  if (const double* real = value.real()) return own(real_text(*real));
  if (value.sequence() != nullptr) return of_sequence(run, *value.sequence());
  if (value.dict() != nullptr) return of_dict(run, *value.dict());
  throw Problem("cannot write " + std::string(value.kind()) + " as text");
}

Text str_of(Run& run, const Value& value) {
  if (value.text() != nullptr) {
    run.budget.spend_text(value.text()->size());
    Text text = *value.text();
    text.is_safe = false;
    return text;
  }
  if (value.is_undefined()) return {};
  return repr_of(run, value);
}

}  // namespace memlayers::jinja

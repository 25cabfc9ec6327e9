// SPDX-License-Identifier: Apache-2.0
#include "jinja/json_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "jinja/characters.h"
#include "jinja/operators.h"

namespace memlayers::jinja {
namespace {

void append_unit(std::string& text, unsigned unit) {
  std::array<char, 16> buffer;
  std::snprintf(buffer.data(), buffer.size(), "\\u%04x", unit);
  text += buffer.data();
}

// What stands for a character, where it does not stand for itself.
std::string escape_of(char32_t code, bool only_ascii) {
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      break;
  }
  std::string text;
  if (code < 0x20 || (only_ascii && code >= 0x80 && code < 0x10000)) {
    append_unit(text, static_cast<unsigned>(code));
  } else if (only_ascii && code >= 0x10000) {
    append_unit(text, 0xD800 + static_cast<unsigned>((code - 0x10000) >> 10));
    append_unit(text, 0xDC00 + static_cast<unsigned>((code - 0x10000) & 0x3FF));
  }
  return text;
}

std::string number_text(const Value& value) {
  if (const double* real = value.real()) {
    if (std::isnan(*real)) return "NaN";
    if (std::isinf(*real)) return *real < 0 ? "-Infinity" : "Infinity";
    return real_text(*real);
  }
  if (const bool* truth = value.boolean()) return *truth ? "true" : "false";
  return std::to_string(*value.integer());
}

class Writer {
 public:
  Writer(Run& run, const JsonOptions& options) : run_(run), options_(options) {}

  void write(const Value& value) {
    run_.budget.spend(1);
    if (value.text() != nullptr) return write(*value.text());
    if (value.is_none()) return put("null");
    if (value.is_number()) return put(number_text(value));
    if (value.dict() != nullptr) return write(*value.dict());
    if (value.is_list() || value.is_tuple()) {
      const Items& items = value.sequence()->items;
      return write_all('[', items.size(), ']', [&](std::size_t i) { write(items[i]); });
    }
    throw Problem("tojson: expected what JSON has, got " + std::string(value.kind()));
  }
  Text take() { return std::move(text_); }

 private:
  void put(const Text& text) {
    run_.budget.spend_text(text.size(), text_.size());
    text_.append(text);
  }
  void put(std::string_view bytes) {
    run_.budget.spend_text(bytes.size(), text_.size());
    text_.append(bytes, true);
  }

  void write(const Text& text) {
    run_.budget.spend_text(text.size(), text_.size());
    put("\"");
    std::size_t done = 0;
    for_each_character(text.bytes(), [&](char32_t code, std::size_t begin, std::size_t end) {
      const std::string escape = escape_of(code, options_.only_ascii);
      if (escape.empty()) return;
      text_.append(text, done, begin);
      run_.budget.spend_text(escape.size(), text_.size());
      text_.append(escape, text.is_template_at(begin));
      done = end;
    });
    text_.append(text, done, text.size());
    put("\"");
  }

  void write(const Dict& dict) {
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (options_.sorts_keys) {
      std::ranges::stable_sort(
          entries, [&](const auto* a, const auto* b) { return is_less(run_, a->first, b->first); });
    }
    write_all('{', entries.size(), '}', [&](std::size_t i) {
      write_key(entries[i]->first);
      put(options_.key_separator);
      write(entries[i]->second);
    });
  }

  void write_key(const Value& key) {
    if (key.text() != nullptr) return write(*key.text());
    if (!key.is_none() && !key.is_number()) {
      throw Problem("tojson: expected keys that JSON can have, got " + std::string(key.kind()));
    }
    put("\"");
    put(key.is_none() ? "null" : number_text(key));
    put("\"");
  }

  template <class WriteOne>
  void write_all(char begin, std::size_t count, char end, const WriteOne& write_one) {
    put(std::string_view(&begin, 1));
    ++level_;
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) put(options_.item_separator);
      new_line();
      write_one(i);
    }
    --level_;
    if (count > 0) new_line();
    put(std::string_view(&end, 1));
  }

  void new_line() {
    if (!options_.indent) return;
    put("\n");
    for (int i = 0; i < level_; ++i) put(*options_.indent);
  }

  Run& run_;
  const JsonOptions& options_;
  Text text_;
  int level_ = 0;
};

}  // namespace

Text json_text(Run& run, const Value& value, const JsonOptions& options) {
  Writer writer(run, options);
  writer.write(value);
  return writer.take();
}

Value value_of_json(const nlohmann::ordered_json& json, bool is_template) {
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::null:
      return Value(None{});
    case nlohmann::ordered_json::value_t::boolean:
      return Value(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)) {
        throw Problem("expected integers that 64 bits hold, got " + json.dump());
      }
      return Value(json.get<std::int64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return Value(Text(json.get_ref<const std::string&>(), is_template));
    case nlohmann::ordered_json::value_t::array: {
      Items items;
      for (const auto& item : json) items.push_back(value_of_json(item, is_template));
      return make_list(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      Dict dict;
      for (const auto& [name, member] : json.items()) {
        dict.set(Value(Text(name, is_template)), value_of_json(member, is_template));
      }
      return make_dict(std::move(dict));
    }
    default:
      throw Problem("expected JSON, got bytes");
  }
}

}  // namespace memlayers::jinja

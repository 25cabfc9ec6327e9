// SPDX-License-Identifier: Apache-2.0
// TrainConfig <-> TOML, over the table of keys in config_keys.cpp.
#include <toml++/toml.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "io/config_keys.h"
#include "io/file_system.h"
#include "io/nearest.h"
#include "io/number_text.h"
#include "io/shown.h"
#include "io/streams.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

using io::config_keys;
using io::ConfigKey;
using io::ConfigValue;
using io::number_text;

// What a TOML value is called in an error.
std::string describe(const toml::node& node) {
  std::ostringstream text;
  node.visit([&](const auto& value) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (toml::is_string<T>) {
      text << "the string " << io::quote(value.get());
    } else if constexpr (toml::is_integer<T>) {
      text << "the integer " << value.get();
    } else if constexpr (toml::is_floating_point<T>) {
      text << "the number " << number_text(value.get());
    } else if constexpr (toml::is_boolean<T>) {
      text << (value.get() ? "true" : "false");
    } else if constexpr (toml::is_table<T>) {
      text << "a table";
    } else if constexpr (toml::is_array<T>) {
      std::ostringstream list;
      list << value;
      text << "the list " << io::shown(list.str());
    } else {
      text << "a date or time";
    }
  });
  return text.str();
}

// Nothing where the value is of a kind that no key takes.
std::optional<ConfigValue> convert(const toml::node& node) {
  if (const auto* v = node.as_boolean()) return v->get();
  if (const auto* v = node.as_integer()) return v->get();
  if (const auto* v = node.as_floating_point()) return v->get();
  if (const auto* v = node.as_string()) return v->get();
  const toml::array* list = node.as_array();
  if (list == nullptr) return std::nullopt;
  std::vector<std::int64_t> numbers;
  std::vector<std::string> texts;
  for (const toml::node& item : *list) {
    if (const auto* number = item.as_integer()) numbers.push_back(number->get());
    if (const auto* text = item.as_string()) texts.push_back(text->get());
  }
  if (texts.size() == list->size()) return texts;  // an empty list too
  if (numbers.size() == list->size()) return numbers;
  return std::nullopt;
}

// Words of other tools for our keys: {word, key}.
constexpr std::pair<std::string_view, std::string_view> kOtherWords[] = {
    {"learning_rate", "lr"},
    {"value_learning_rate", "value_lr"},
    {"batch_size", "batch_tokens"},
    {"max_steps", "steps"},
    {"gradient_accumulation", "accumulate"},
    {"warmup_steps", "warmup"},
    {"grad_clip", "clip"},
    {"hidden_size", "dim"},
    {"num_layers", "layers"},
    {"num_heads", "heads"},
    {"intermediate_size", "ff_dim"},
    {"max_length", "context"},
    {"top_k", "knn"},
    {"value_dim", "v_dim"},
    {"key_dim", "k_dim"}};

const ConfigKey* find(const std::string& section, const std::string& name) {
  for (const ConfigKey& key : config_keys()) {
    if (key.section == section && key.name == name) return &key;
  }
  return nullptr;
}

std::string unknown_key(const std::string& section, const std::string& name) {
  std::vector<std::string> here, everywhere;
  for (const ConfigKey& key : config_keys()) {
    if (key.section == section) here.push_back(key.name);
    everywhere.push_back(key.name);
  }
  const std::string shown = io::shown(section.empty() ? name : "[" + section + "] " + name);
  // The same word in another section is a likelier slip than a like word in this one.
  for (const ConfigKey& key : config_keys()) {
    if (key.name == name) return "unknown key " + shown + "; did you mean " + key.full_name() + "?";
  }
  std::vector<std::string> words = here.empty() ? everywhere : here;
  for (const auto& [word, key] : kOtherWords) {
    if (std::find(here.begin(), here.end(), key) != here.end()) words.emplace_back(word);
  }
  std::string guess = io::nearest(name, words);
  for (const auto& [word, key] : kOtherWords) {
    if (guess == word && std::find(here.begin(), here.end(), guess) == here.end()) guess = key;
  }
  const ConfigKey* key = find(section, guess);
  return "unknown key " + shown + "; did you mean " + (key == nullptr ? guess : key->full_name()) +
         "?";
}

void set_key(TrainConfig& config, const std::string& where, const std::string& section,
             const std::string& name, const toml::node& node) {
  const ConfigKey* key = find(section, name);
  if (key == nullptr) throw Error(where + unknown_key(section, name));
  const std::optional<ConfigValue> value = convert(node);
  try {
    if (!value) throw Error("expected " + key->type);
    key->set(config, *value);
  } catch (const Error& error) {
    throw Error(where + key->full_name() + ": " + error.what() + ", got " + describe(node));
  }
}

std::set<std::string> sections() {
  std::set<std::string> names;
  for (const ConfigKey& key : config_keys()) {
    if (!key.section.empty()) names.insert(key.section);
  }
  return names;
}

void read_file(TrainConfig& config, const std::string& path) {
  const std::string text = io::read_stream_or_file(io::posix(), path);
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error(path + ":" + std::to_string(error.source().begin.line) +
                ": expected TOML, got: " + std::string(error.description()));
  }
  const auto where = [&](const toml::node& node) {
    return path + ":" + std::to_string(node.source().begin.line) + ": ";
  };
  for (const auto& [name, node] : table) {
    const std::string section(name.str());
    if (const toml::table* inner = node.as_table()) {
      if (!sections().contains(section)) {
        const std::set<std::string> known = sections();
        throw Error(where(node) + "unknown section [" + io::shown(section) + "]; did you mean [" +
                    io::nearest(section, {known.begin(), known.end()}) + "]?");
      }
      if (section == "memory" && !config.model.memory) config.model.memory.emplace();
      for (const auto& [key, value] : *inner) {
        set_key(config, where(value), section, std::string(key.str()), value);
      }
    } else {
      set_key(config, where(node), "", section, node);
    }
  }
}

// "section.key=value": the value as TOML, or a bare string.
void read_override(TrainConfig& config, const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) {
    throw Error("--set " + text + ": expected key=value, got no \"=\"");
  }
  const std::string path = text.substr(0, equals), value = text.substr(equals + 1);
  const std::size_t dot = path.find('.');
  const std::string section = dot == std::string::npos ? "" : path.substr(0, dot);
  const std::string name = dot == std::string::npos ? path : path.substr(dot + 1);
  toml::table table;
  try {
    table = toml::parse("value = " + value);
  } catch (const toml::parse_error&) {
    table = toml::table{{"value", value}};
  }
  // A folder may be called 2026, or 2026-11-24.
  const ConfigKey* key = find(section, name);
  const toml::node& node = *table.get("value");
  if (key != nullptr && !node.is_string() && !node.is_array() &&
      (key->type == "a string" || key->type == "a list of strings")) {
    table = toml::table{{"value", value}};
  }
  set_key(config, "--set " + path + ": ", section, name, *table.get("value"));
}

std::string toml_text(const ConfigValue& value) {
  std::ostringstream out;
  std::visit(
      [&](const auto& v) {
        using T = std::remove_cvref_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::vector<std::int64_t>> ||
                      std::is_same_v<T, std::vector<std::string>>) {
          toml::array list;
          for (const auto& item : v) list.push_back(item);
          out << list;
        } else if constexpr (std::is_same_v<T, double>) {
          const std::string number = number_text(v);
          const bool is_whole = number.find_first_not_of("-0123456789") == std::string::npos;
          out << number << (is_whole ? ".0" : "");
        } else if constexpr (std::is_same_v<T, std::string>) {
          out << toml::value<std::string>(v);
        } else if constexpr (std::is_same_v<T, bool>) {
          out << (v ? "true" : "false");
        } else if constexpr (std::is_same_v<T, std::int64_t>) {
          out << v;
        }
      },
      value);
  return out.str();
}

}  // namespace

TrainConfig load_train_config(const std::string& path, const std::vector<std::string>& overrides) {
  TrainConfig config;
  read_file(config, path);
  for (const std::string& text : overrides) read_override(config, text);
  // 0 switches a clip off, which TOML has no other word for.
  if (config.train.clip == 0) config.train.clip.reset();
  if (config.train.value_clip == 0) config.train.value_clip.reset();
  try {
    config.validate();
  } catch (const Error& error) {
    throw Error(path + ": " + error.what());
  }
  return config;
}

std::string describe_train_config() {
  TrainConfig defaults;
  defaults.model.memory.emplace();
  std::string text;
  std::string section;
  for (const ConfigKey& key : config_keys()) {
    if (key.section != section) {
      section = key.section;
      text += "\n[" + section + "]\n";
    }
    const ConfigValue value = key.get(defaults);
    const bool is_absent = std::holds_alternative<std::monostate>(value);
    std::string line = is_absent ? "# " + key.name + " =" : key.name + " = " + toml_text(value);
    line.resize(std::max<std::size_t>(line.size() + 1, 34), ' ');
    text += line + "# " + key.sentence + " (" + key.type + ")\n";
  }
  return text;
}

std::string to_toml(const TrainConfig& config) {
  std::string text;
  std::string section;
  for (const ConfigKey& key : config_keys()) {
    ConfigValue value = key.get(config);
    // An absent clip is written as 0: absent in the file means the default.
    if (key.name == "clip" && std::holds_alternative<std::monostate>(value)) value = 0.0;
    if (std::holds_alternative<std::monostate>(value)) continue;
    if (key.section != section) {
      section = key.section;
      text += "\n[" + section + "]\n";
    }
    text += key.name + " = " + toml_text(value) + "\n";
  }
  return text;
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "cli/section.h"

#include <toml++/toml.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include "io/nearest.h"
#include "io/shown.h"
#include "io/streams.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

std::string with_hyphens(std::string name) {
  std::ranges::replace(name, '_', '-');
  return name;
}

// The option that a key names: --name of `verb`.
CLI::Option& option_of(CLI::App& verb, const std::string& key, const std::string& where) {
  std::vector<std::string> names;
  for (CLI::Option* option : verb.get_options()) {
    if (option->get_lnames().empty() || option->get_lnames().front() == "help") continue;
    names.push_back(option->get_lnames().front());
    if (names.back() == with_hyphens(key) && names.back() != "config") return *option;
  }
  throw Error(where + "unknown key " + io::shown(key) + "; did you mean " +
              io::nearest(with_hyphens(key), names) + "?");
}

std::string text_of(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  std::ostringstream out;
  node.visit([&](const auto& value) { out << value; });
  return out.str();
}

}  // namespace

void read_section(CLI::App& verb, const std::string& path, const std::string& section) {
  toml::table file;
  try {
    file = toml::parse(io::read_stream_or_file(io::posix(), path));
  } catch (const toml::parse_error& error) {
    throw Error(path + ":" + std::to_string(error.source().begin.line) +
                ": expected TOML, got: " + std::string(error.description()));
  }
  const toml::table* table = file[section].as_table();
  if (table == nullptr) {
    throw Error(path + ": expected a section [" + section + "], found none");
  }
  for (const auto& [key, node] : *table) {
    const std::string where = path + ":" + std::to_string(node.source().begin.line) + ": ";
    CLI::Option& option = option_of(verb, std::string(key.str()), where);
    if (option.count() > 0) continue;
    const toml::array* list = option.get_expected_max() > 1 ? node.as_array() : nullptr;
    const auto is_value = [](const toml::node& one) {
      return one.is_string() || one.is_integer() || one.is_floating_point() || one.is_boolean();
    };
    if (list == nullptr ? !is_value(node) : !std::ranges::all_of(*list, is_value)) {
      throw Error(where + std::string(key.str()) + ": expected a string, a number, true or false" +
                  (option.get_expected_max() > 1 ? ", or a list of them" : ""));
    }
    try {
      if (list == nullptr) {
        option.add_result(text_of(node));
      } else {
        for (const toml::node& each : *list) option.add_result(text_of(each));
      }
      option.run_callback();
    } catch (const CLI::Error& error) {
      throw Error(where + std::string(key.str()) + ": " + error.what());
    }
  }
}

}  // namespace memlayers::cli

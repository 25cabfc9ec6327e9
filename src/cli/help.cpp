// SPDX-License-Identifier: Apache-2.0
#include "cli/help.h"

#include <sstream>
#include <string>
#include <string_view>

namespace memlayers::cli {
namespace {

constexpr std::size_t kHelpColumns = 100;  // of a line
constexpr std::size_t kNameColumns = 26;   // of its first part

// "  name   text", the text in lines of its own column.
std::string entry(const std::string& name, const std::string& text) {
  std::string lines, line = "  " + name;
  if (line.size() + 2 > kNameColumns) {
    lines = line + "\n";
    line.clear();
  }
  line.resize(kNameColumns, ' ');
  std::istringstream words(text);
  bool is_first = true;
  for (std::string word; words >> word;) {
    if (!is_first && line.size() + 1 + word.size() > kHelpColumns) {
      lines += line + "\n";
      line.assign(kNameColumns, ' ');
      is_first = true;
    }
    line += (is_first ? "" : " ") + word;
    is_first = false;
  }
  return lines + line + "\n";
}

// "TEXT:{adam,sgd}" -> "TEXT", "adam or sgd"
std::pair<std::string, std::string> type_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t colon = type.find(':');
  std::string choices;
  if (colon != std::string::npos && type[colon + 1] == '{') {
    choices = type.substr(colon + 2, type.find('}') - colon - 2);
    for (std::size_t at = 0; (at = choices.find(',', at)) != std::string::npos; at += 4) {
      choices.replace(at, 1, " or ");
    }
  }
  return {type.substr(0, colon), choices};
}

class Help final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    const std::string options = make_groups(app, mode);
    return make_description(app) + "\n" + make_usage(app, std::move(name)) + make_footer(app) +
           make_positionals(app) + options + make_subcommands(app, mode);
  }

  std::string make_description(const CLI::App* app) const override {
    return app->get_description() + "\n";
  }

  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    const auto [type, choices] = type_of(*option);
    const bool takes_value = option->get_type_size() != 0;
    std::string name = make_option_name(option, is_positional);
    if (takes_value && !is_positional) name += " " + type;
    if (option->get_expected_max() == CLI::detail::expected_max_vector_size) name += " ...";
    std::string text = option->get_description();
    if (!choices.empty()) text += " (" + choices + ")";
    const std::string preset = takes_value ? option->get_default_str() : "";
    if (!preset.empty()) text += " [" + preset + "]";
    return entry(name, text);
  }

  std::string make_subcommand(const CLI::App* verb) const override {
    return entry(verb->get_name(), verb->get_description());
  }
};

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter() { return std::make_shared<Help>(); }

}  // namespace memlayers::cli

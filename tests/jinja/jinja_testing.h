// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "jinja/json_text.h"
#include "jinja/template.h"

namespace memlayers::jinja {

inline std::vector<Variable> variables_of(const std::string& json) {
  std::vector<Variable> variables;
  const auto parsed = nlohmann::ordered_json::parse(json);
  for (const auto& [name, value] : parsed.items()) {
    variables.push_back({name, value_of_json(value, false)});
  }
  return variables;
}

inline Text render_text(const std::string& source, const std::string& json = "{}",
                        const RenderOptions& options = {}) {
  return Template("chat.jinja", source).render(variables_of(json), options);
}

inline std::string render(const std::string& source, const std::string& json = "{}",
                          const RenderOptions& options = {}) {
  return render_text(source, json, options).bytes();
}

// What goes wrong, or "".
inline std::string error_of(const std::string& source, const std::string& json = "{}",
                            const RenderOptions& options = {}) {
  try {
    render(source, json, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace memlayers::jinja

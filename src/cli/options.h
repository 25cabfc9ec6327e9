// SPDX-License-Identifier: Apache-2.0
// Options that several verbs have.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace memlayers::cli {

void add_model(CLI::App& app, std::string& model);  // the first argument
void add_threads(CLI::App& app, int& threads);      // --threads
void add_json(CLI::App& app, bool& is_json,
              const std::string& text = "one JSON object on standard output");  // --json

}  // namespace memlayers::cli

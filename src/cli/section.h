// SPDX-License-Identifier: Apache-2.0
// Options of a verb from a file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace memlayers::cli {

// Gives the options of `verb` that the command line did not name the values that they have in
// [section] of a TOML file, whose keys are the options' names; other sections are not looked at.
// Throws Error naming file, line and key for what is no option, or no value of one.
void read_section(CLI::App& verb, const std::string& path, const std::string& section);

}  // namespace memlayers::cli

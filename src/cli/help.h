// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

namespace memlayers::cli {

// What --help prints: what the verb is for, how it is called, with examples, and then its options
// in the order in which they were declared; no line above 100 columns.
std::shared_ptr<CLI::FormatterBase> help_formatter();

}  // namespace memlayers::cli

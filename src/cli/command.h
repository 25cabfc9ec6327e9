// SPDX-License-Identifier: Apache-2.0
// The verbs of the command line. Each file of this folder exposes one.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "memlayers/config.h"

namespace memlayers::cli {

// add() declares the options on `app` and returns what runs once they are parsed: the exit code, 0
// done, or an exception, which main() turns into one line and an exit code.
struct Command {
  const char* name;
  const char* summary;
  const char* example;  // shown under --help
  std::function<std::function<int()>(CLI::App& app)> add;
};

Command train_command();
Command generate_command();
Command chat_command();
Command eval_command();
Command inspect_command();
Command quantize_command();
Command import_command();
Command export_command();
Command patch_command();
Command grow_command();
Command retrofit_command();
Command learn_command();
Command explain_command();
Command serve_command();
Command bench_command();
Command plan_command();
Command tokenize_command();

// A mistake in how the command was called, found after parsing: exit code 2.
class UsageError : public std::runtime_error {
 public:
  explicit UsageError(const std::string& message) : std::runtime_error(message) {}
};

// CONFIG and the words behind --set, among which CONFIG may stand, of a verb that takes both.
TrainConfig read_train_config(const std::string& verb, std::string path,
                              const std::vector<std::string>& words);

// Number of CPU threads of the process; 0: all cores.
void set_threads(int threads);

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
// What the verbs that answer have in common.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "memlayers/chat.h"
#include "memlayers/generator.h"

namespace memlayers::cli {

void add_generate_options(CLI::App& app, GenerateOptions& options);  // --max-tokens, --seed, ...
void add_pool_access(CLI::App& app, std::string& access);            // --pool
RowAccess row_access(const std::string& access);

// The model's own. Throws Error where it has none.
ChatTemplate chat_template_of(const Generator& generator);

// How the verbs that ask facts put them: as messages to the model's chat template where it has one.
struct AskArguments {
  bool is_plain = false;
  std::optional<std::string> system = {};
};
void add_chat(CLI::App& app, AskArguments& arguments);  // --no-chat, --system
// Throws Error where a system message is given for a model without a template.
void ask_as_told(Generator& generator, const AskArguments& arguments);

// --gate-below: where the confidence that a patch taught what is asked is lower, the memory is off.
void add_gate(CLI::App& app, std::optional<double>& below);
// Judges the prompts, where there is a gate or `tells` says that the confidence is wanted.
void judge_as_told(Generator& generator, const std::optional<double>& below, bool tells);

// Edits that cannot be followed are told once; answers go on with the version before.
void tell_store_error(const Generator& generator, std::string& told);

}  // namespace memlayers::cli

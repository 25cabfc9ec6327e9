// SPDX-License-Identifier: Apache-2.0
#include "cli/generate_options.h"

#include "cli/terminal.h"
#include "memlayers/confidence.h"
#include "memlayers/error.h"

namespace memlayers::cli {

void add_generate_options(CLI::App& app, GenerateOptions& options) {
  app.add_option("--max-tokens", options.max_tokens, "new tokens, at most")->capture_default_str();
  app.add_option("--temperature", options.temperature, "0: always the most likely token")
      ->capture_default_str();
  app.add_option("--top-k", options.top_k, "draw from the k most likely tokens");
  app.add_option("--top-p", options.top_p, "draw from the smallest set with this probability");
  app.add_option("--min-p", options.min_p,
                 "draw from tokens of at least this share of the greatest probability");
  app.add_option("--repetition-penalty", options.repetition_penalty,
                 "divides the logits of tokens that came already; 1: none")
      ->capture_default_str();
  app.add_option("--presence-penalty", options.presence_penalty,
                 "taken off the logits of tokens of the answer")
      ->capture_default_str();
  app.add_option("--frequency-penalty", options.frequency_penalty,
                 "taken off for each time that they came")
      ->capture_default_str();
  app.add_option("--seed", options.seed, "of the draws")->capture_default_str();
  app.add_option("--stop", options.stop, "text that ends a generation (repeatable)");
  app.add_flag("--ignore-eos", options.ignore_eos, "go on behind the end-of-text token");
}

void add_pool_access(CLI::App& app, std::string& access) {
  app.add_option("--pool", access,
                 "mapped: the pool's rows stay in their files, read as needed; memory: read all of "
                 "them first; pread: each part when it is first needed, and keep it, for a disk "
                 "that may fail")
      ->check(CLI::IsMember({"mapped", "memory", "pread"}))
      ->capture_default_str();
}

RowAccess row_access(const std::string& access) {
  if (access == "memory") return RowAccess::kMemory;
  return access == "pread" ? RowAccess::kRead : RowAccess::kMapped;
}

ChatTemplate chat_template_of(const Generator& generator) {
  auto found = ChatTemplate::find(generator.tokenizer());
  if (!found) {
    throw Error(
        "expected a model with a chat template (chat_template.jinja, or chat_template in "
        "tokenizer_config.json), got one without");
  }
  return *std::move(found);
}

void add_chat(CLI::App& app, AskArguments& arguments) {
  CLI::Option* plain =
      app.add_flag("--no-chat", arguments.is_plain,
                   "prompts are text, also where the model has a chat template, to which they are "
                   "messages otherwise");
  app.add_option("--system", arguments.system, "a system message before each prompt")
      ->excludes(plain);
}

void ask_as_told(Generator& generator, const AskArguments& arguments) {
  if (arguments.is_plain) return;
  if (!arguments.system) return generator.ask_by_its_template();
  generator.ask_by(ChatShape{chat_template_of(generator), arguments.system});
}

void add_gate(CLI::App& app, std::optional<double>& below) {
  app.add_option("--gate-below", below,
                 "answer without memory where memory_confidence, that a patch taught what is "
                 "asked, is lower")
      ->check(CLI::Range(0.0, 1.0));
}

void judge_as_told(Generator& generator, const std::optional<double>& below, bool tells) {
  if (below || tells) generator.judge_by(confidence_judge(generator), below);
}

void tell_store_error(const Generator& generator, std::string& told) {
  const std::string error = generator.store_error().value_or("");
  if (!error.empty() && error != told) print_warning(error + "; the pool stays as it was");
  told = error;
}

}  // namespace memlayers::cli

// SPDX-License-Identifier: Apache-2.0
// A request for completions, of either kind, as the engine takes it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/engine.h"
#include "api/fields.h"
#include "api/options.h"
#include "api/token_text.h"

namespace memlayers::api {

inline constexpr std::int64_t kMostTokens = INT32_MAX;  // that a request may name
inline constexpr std::int64_t kMostLogprobs = 20;       // alternatives of a token

struct Prompt {
  std::vector<std::int32_t> tokens = {};
  std::string text = {};  // what `echo` gives back
};

struct Asked {
  bool is_chat = false;
  std::vector<Prompt> prompts = {};  // choice n * p + i continues prompt p
  std::int64_t n = 1;
  GenerateOptions options = {};  // of choice i of each prompt, but with seed + i, and max_tokens
                                 // that the context has room for behind that prompt
  std::string format = {};       // the JSON schema that options.grammar stands for; "": none
  bool echo = false, streams = false, includes_usage = false, gives_receipt = false;
  MemoryView memory = {};
  std::int64_t explain_slots = 0;
};

// What requests are read with.
struct Reading {
  Engine& engine;
  const ServiceOptions& options;
  // What a JSON schema allows. Throws Refusal saying which part of it is not known.
  std::function<std::shared_ptr<const Grammar>(std::string_view schema)> grammar;
  // The body as it was sent: a schema's properties come in its order. "": that of their names.
  std::string_view text = {};
};

FieldRules completion_rules();
FieldRules chat_rules();
// Throw FieldError, Refusal or Error for what is wrong; the prompt is never cut.
Asked read_completion(const io::JsonField& body, const Reading& reading);
Asked read_chat(const io::JsonField& body, const Reading& reading);

// --- Parts that several requests have ----------------------------------------------------------

// Fields of both kinds of completions, for their tables.
std::vector<FieldRule> with_common_rules(std::vector<FieldRule> own);
// All common fields but those of length and log-probabilities.
void read_common(const io::JsonField& body, const Reading& reading, Asked& asked);
// Refuses prompts that leave no room for an answer, and sets max_tokens: as asked, or the context.
void fit_context(const Reading& reading, std::optional<std::int64_t> max_tokens,
                 const std::string& prompt_field, Asked& asked);
// The member "model", where it is given, is this one. Throws Refusal 404.
void check_model(const io::JsonField& body, const Reading& reading);
// {version, min_pool_version, without, off}.
MemoryView read_memory_view(const io::JsonField& body, Engine& engine);
extern const FieldRule kModelRule, kMemoryRule;

// A conversation as tokens: messages, add_generation_prompt, chat_template_kwargs.
std::vector<PromptPiece> read_conversation(const io::JsonField& body, const Engine& engine);
extern const FieldRule kMessagesRule, kGenerationPromptRule, kTemplateKwargsRule;

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
// The chat templates among a tokenizer's files.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::text {

// Beside tokenizer_config.json, which may have one too.
inline constexpr std::array kChatTemplateFiles = {"chat_template.jinja", "chat_template.json"};

struct ChatSource {
  std::string name;   // "default", "tool_use"
  std::string place;  // "chat_template.jinja", for errors
  std::string source;
};

// As transformers looks for them: of several with one name the first. Throws Error naming file and
// field.
std::vector<ChatSource> chat_sources(const TokenizerFiles& files);

// "bos_token" and so on, as the files or else the tokenizer have them.
std::vector<std::pair<std::string, std::string>> token_names(const Tokenizer& tokenizer);

}  // namespace memlayers::text

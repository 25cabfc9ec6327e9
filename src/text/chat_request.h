// SPDX-License-Identifier: Apache-2.0
// What a chat template is given.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/template.h"
#include "memlayers/chat.h"

namespace memlayers::text {

struct ChatRequest {
  std::vector<jinja::Variable> variables;
  bool has_tools = false;
  std::int64_t bytes = 0;  // about as many as the variables hold
};

ChatRequest request_of(const std::vector<ChatMessage>& messages, bool asks_answer);
// Throws Error beginning with `where`.
ChatRequest request_of_json(std::string_view json, const std::string& where);

}  // namespace memlayers::text

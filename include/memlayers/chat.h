// SPDX-License-Identifier: Apache-2.0
// Conversations as the text that a model was trained on (docs/chat.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memlayers/error.h"
#include "memlayers/tokenizer.h"

namespace memlayers {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
  bool operator==(const ChatMessage&) const = default;
};

// A template says that it does not take these messages: raise_exception() of the template.
class ChatRefusal : public Error {
 public:
  ChatRefusal(const std::string& text, std::string message)
      : Error(text), message_(std::move(message)) {}
  const std::string& message() const { return message_; }  // the template's own words

 private:
  std::string message_;
};

// The chat template of a tokenizer: a program of the model's files, which is run in bounded time
// and memory and reaches nothing but what it is given. Immutable; safe to use from several threads.
//
// What it renders says of each stretch whether the template wrote it or a message did, which
// Tokenizer::encode_pieces() heeds: no message can become a control token. Numbers and the names of
// known roles count as the template's.
class ChatTemplate {
 public:
  // chat_template.jinja, or "chat_template" of tokenizer_config.json or chat_template.json, among
  // the tokenizer's files. None where there is none. Throws Error naming file and line.
  static std::optional<ChatTemplate> find(const Tokenizer& tokenizer);
  // Another template for this tokenizer. `name` begins its errors.
  ChatTemplate(const Tokenizer& tokenizer, const std::string& name, std::string_view source);

  // With the beginning of the answer, unless `asks_answer` is false. Throws Error for no messages,
  // for what goes wrong in the template and for its limits; ChatRefusal.
  std::vector<PromptPiece> render(const std::vector<ChatMessage>& messages,
                                  bool asks_answer = true) const;
  // The same of a JSON object as chat servers take it: "messages"; and where they are given
  // "tools", "documents", "add_generation_prompt" (true unless said otherwise) and
  // "chat_template_kwargs", an object of more variables. Or of a list of messages alone. `where`
  // begins complaints about it.
  std::vector<PromptPiece> render_json(std::string_view request, const std::string& where) const;

  struct State;

 private:
  explicit ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

// The pieces as one text.
std::string joined(const std::vector<PromptPiece>& pieces);

}  // namespace memlayers

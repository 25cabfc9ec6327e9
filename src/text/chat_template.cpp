// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include "io/shown.h"
#include "jinja/template.h"
#include "memlayers/chat.h"
#include "text/chat_files.h"
#include "text/chat_request.h"

namespace memlayers {

struct ChatTemplate::State {
  std::vector<std::pair<std::string, jinja::Template>> templates;  // by their names
  std::vector<std::pair<std::string, std::string>> tokens;

  // As transformers: one for tools where there are tools and it is there, else the default.
  const jinja::Template& choose(bool has_tools) const {
    const auto named = [&](std::string_view name) {
      return std::ranges::find(templates, name,
                               [](const auto& one) -> std::string_view { return one.first; });
    };
    if (const auto of_tools = named("tool_use"); has_tools && of_tools != templates.end()) {
      return of_tools->second;
    }
    if (const auto usual = named("default"); usual != templates.end()) return usual->second;
    std::string names;
    for (const auto& [name, found] : templates)
      names += (names.empty() ? "" : ", ") + io::quote(name);
    throw Error("chat_template: expected one with the name \"default\", got " + names);
  }

  std::vector<PromptPiece> render(text::ChatRequest request) const {
    for (const auto& [name, content] : tokens) {
      const auto is_given = [&](const jinja::Variable& known) { return known.name == name; };
      if (std::ranges::any_of(request.variables, is_given)) continue;
      request.variables.push_back({name, jinja::Value::own_text(content)});
    }
    std::vector<PromptPiece> pieces;
    try {
      choose(request.has_tools)
          .render(request.variables, {.given_bytes = request.bytes})
          .for_each_piece([&](std::string_view bytes, bool is_template) {
            pieces.push_back({std::string(bytes), is_template});
          });
    } catch (const jinja::TemplateRefusal& refusal) {
      throw ChatRefusal(refusal.what(), refusal.message());
    }
    return pieces;
  }
};

std::optional<ChatTemplate> ChatTemplate::find(const Tokenizer& tokenizer) {
  const auto sources = text::chat_sources(tokenizer.files());
  if (sources.empty()) return std::nullopt;
  auto state = std::make_shared<State>();
  for (const text::ChatSource& source : sources) {
    state->templates.emplace_back(source.name, jinja::Template(source.place, source.source));
  }
  state->tokens = text::token_names(tokenizer);
  return ChatTemplate(std::move(state));
}

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer, const std::string& name,
                           std::string_view source) {
  auto state = std::make_shared<State>();
  state->templates.emplace_back("default", jinja::Template(name, source));
  state->tokens = text::token_names(tokenizer);
  state_ = std::move(state);
}

std::vector<PromptPiece> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                              bool asks_answer) const {
  return state_->render(text::request_of(messages, asks_answer));
}

std::vector<PromptPiece> ChatTemplate::render_json(std::string_view request,
                                                   const std::string& where) const {
  return state_->render(text::request_of_json(request, where));
}

std::string joined(const std::vector<PromptPiece>& pieces) {
  std::string text;
  for (const PromptPiece& piece : pieces) text += piece.text;
  return text;
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "text/chat_request.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/shown.h"
#include "jinja/json_text.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

using Json = nlohmann::ordered_json;
using jinja::Dict;
using jinja::Items;
using jinja::Value;

Value foreign(std::string_view text) { return Value(jinja::Text(text, false)); }

// Templates make control tokens of roles ("<|" + role + "|>"): those that everybody knows are words
// of the template, whoever names them.
Value role_value(const std::string& role) {
  constexpr std::array<std::string_view, 8> kKnown{"system", "developer", "user",  "assistant",
                                                   "tool",   "function",  "model", "ipython"};
  const bool is_known = std::ranges::find(kKnown, role) != kKnown.end();
  return Value(jinja::Text(role, is_known));
}

[[noreturn]] void fail(const std::string& where, const std::string& field,
                       std::string_view expected, const Json& got) {
  throw Error(where + ": " + field + ": expected " + std::string(expected) + ", got " +
              io::brief(nlohmann::json(got)));
}

// As transformers: a member that is null counts as absent; reasoning goes by three names.
Value message_value(const Json& message, const std::string& where, const std::string& field) {
  if (!message.is_object()) fail(where, field, "an object", message);
  const Json* reasoning = nullptr;
  const auto is_given = [&](const char* name) {
    const auto found = message.find(name);
    return found != message.end() && !found->is_null();
  };
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    if (reasoning == nullptr && is_given(name)) reasoning = &message.at(name);
  }
  Dict dict;
  const auto put = [&](const char* name, Value value) {
    dict.set(Value::own_text(name), std::move(value));
  };
  if (reasoning != nullptr && !is_given("thinking")) {
    put("thinking", jinja::value_of_json(*reasoning, false));
  }
  for (const auto& [name, member] : message.items()) {
    if (member.is_null()) continue;
    const bool is_role = name == "role" && member.is_string();
    dict.set(foreign(name), is_role ? role_value(member.get_ref<const std::string&>())
                                    : jinja::value_of_json(member, false));
  }
  if (reasoning != nullptr) put("reasoning_content", jinja::value_of_json(*reasoning, false));
  return make_dict(std::move(dict));
}

Value list_or_none(const Json& request, const char* name, const std::string& where) {
  const auto found = request.find(name);
  if (found == request.end() || found->is_null()) return Value(jinja::None{});
  if (!found->is_array()) fail(where, name, "a list", *found);
  return jinja::value_of_json(*found, false);
}

void check_names(const Json& request, const std::string& where) {
  constexpr std::array<std::string_view, 5> kKnown{"messages", "tools", "documents",
                                                   "add_generation_prompt", "chat_template_kwargs"};
  for (const auto& [name, value] : request.items()) {
    if (std::ranges::find(kKnown, name) != kKnown.end()) continue;
    throw Error(where + ": unknown field " + io::quote(name));
  }
}

Value messages_of(const Json& messages, const std::string& where) {
  if (!messages.is_array() || messages.empty()) {
    fail(where, "messages", "a list of at least one message", messages);
  }
  Items all;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    all.push_back(message_value(messages[i], where, "messages[" + std::to_string(i) + "]"));
  }
  return make_list(std::move(all));
}

ChatRequest parsed(const Json& request, const std::string& where) {
  if (request.is_array()) return parsed(Json{{"messages", request}}, where);
  if (!request.is_object()) {
    throw Error(where + ": expected an object or a list of messages, got " +
                io::brief(nlohmann::json(request)));
  }
  check_names(request, where);
  if (!request.contains("messages")) {
    throw Error(where + ": expected a field \"messages\", got none");
  }
  bool asks_answer = true;
  if (const auto found = request.find("add_generation_prompt"); found != request.end()) {
    if (!found->is_boolean()) fail(where, "add_generation_prompt", "true or false", *found);
    asks_answer = found->get<bool>();
  }
  ChatRequest made;
  made.variables = {{"messages", messages_of(request.at("messages"), where)},
                    {"tools", list_or_none(request, "tools", where)},
                    {"documents", list_or_none(request, "documents", where)},
                    {"add_generation_prompt", Value(asks_answer)}};
  made.has_tools = !made.variables[1].value.is_none();
  const auto more = request.find("chat_template_kwargs");
  if (more == request.end() || more->is_null()) return made;
  if (!more->is_object()) fail(where, "chat_template_kwargs", "an object", *more);
  for (const auto& [name, value] : more->items()) {
    const auto is_known = [&](const jinja::Variable& known) { return known.name == name; };
    if (std::ranges::any_of(made.variables, is_known)) {
      throw Error(where + ": chat_template_kwargs: expected names of more variables, got " +
                  io::quote(name));
    }
    made.variables.push_back({name, jinja::value_of_json(value, false)});
  }
  return made;
}

}  // namespace

ChatRequest request_of(const std::vector<ChatMessage>& messages, bool asks_answer) {
  if (messages.empty()) throw Error("messages: expected at least one, got none");
  ChatRequest request;
  Items all;
  for (const ChatMessage& message : messages) {
    check_utf8(message.role, "a message's role");
    check_utf8(message.content, "a message");
    request.bytes += static_cast<std::int64_t>(message.role.size() + message.content.size());
    Dict dict;
    dict.set(Value::own_text("role"), role_value(message.role));
    dict.set(Value::own_text("content"), foreign(message.content));
    all.push_back(make_dict(std::move(dict)));
  }
  request.variables = {{"messages", make_list(std::move(all))},
                       {"tools", Value(jinja::None{})},
                       {"documents", Value(jinja::None{})},
                       {"add_generation_prompt", Value(asks_answer)}};
  return request;
}

ChatRequest request_of_json(std::string_view json, const std::string& where) {
  try {
    ChatRequest request = parsed(io::parse_ordered_json(json, where), where);
    request.bytes = static_cast<std::int64_t>(json.size());
    return request;
  } catch (const jinja::Problem& problem) {  // of a value that no template can hold
    throw Error(where + ": " + problem.what());
  }
}

}  // namespace memlayers::text

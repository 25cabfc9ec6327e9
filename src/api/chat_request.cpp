// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "api/json.h"
#include "api/request.h"
#include "api/status.h"

namespace memlayers::api {

const FieldRule kMessagesRule{
    "messages",
    R"({"type":"array","minItems":1,"items":{"type":"object","required":["role"],"properties":{
      "role":{"enum":["system","developer","user","assistant"]},
      "content":{"anyOf":[{"type":"null"},{"type":"string"},{"type":"array","items":{
      "type":"object","required":["type","text"],"properties":{"type":{"const":"text"},
      "text":{"type":"string"}}}}]},"name":{"type":"string"}}}})",
    "The conversation. Parts of text are put together, a line each."};
const FieldRule kGenerationPromptRule{"add_generation_prompt",
                                      R"({"type":"boolean","default":true})",
                                      "Whether the template begins an answer (vLLM's)."};
const FieldRule kTemplateKwargsRule{"chat_template_kwargs", R"({"type":"object"})",
                                    "More variables for the model's chat template (vLLM's)."};

namespace {

const FieldRule kChatRules[] = {
    kMessagesRule,
    {"max_completion_tokens", R"({"type":"integer","minimum":1})",
     "Of an answer, at most; left out: what the context has room for."},
    {"max_tokens", R"({"type":"integer","minimum":1})", "The same, by its older name."},
    {"logprobs", R"({"type":"boolean","default":false})", "Of each token of the answer."},
    {"top_logprobs", R"({"type":"integer","minimum":0,"maximum":20})",
     "And of so many of the most likely ones at its place. Only with logprobs."},
    kGenerationPromptRule,
    kTemplateKwargsRule,
    {"tools", R"({"type":"array","maxItems":0})", "this version calls no tools", "[[]]"},
    {"tool_choice", R"({"enum":["none","auto"]})", "this version calls no tools",
     R"(["none","auto"])"},
    {"parallel_tool_calls", R"({"type":"boolean"})", "", "*"},
    {"functions", R"({"type":"array","maxItems":0})", "this version calls no functions", "[[]]"},
    {"function_call", R"({"enum":["none","auto"]})", "this version calls no functions",
     R"(["none","auto"])"},
    {"modalities", R"({"const":["text"]})", "the model answers in text", R"([["text"]])"},
    {"audio", R"({"type":"null"})", "the model answers in text", "[]"},
    {"prediction", R"({"type":"null"})", "answers are not predicted", "[]"},
    {"reasoning_effort", R"({"const":"none"})", "the model does not reason apart", R"(["none"])"},
    {"verbosity", R"({"const":"medium"})", "the model has one way to answer", R"(["medium"])"},
    {"web_search_options", R"({"type":"null"})", "the server opens no connections", "[]"},
};

// What a message may say beside role, content and name, where it says nothing.
constexpr FieldRule kMessageRules[] = {
    {"role", "{}", ""},
    {"content", "{}", ""},
    {"name", "{}", ""},
    {"refusal", "{}", "", "*"},
    {"annotations", "{}", "", "*"},
    {"tool_calls", "{}", "this version calls no tools", "[[]]"},
    {"function_call", "{}", "this version calls no functions", "[]"},
    {"audio", "{}", "the model takes text", "[]"},
    {"reasoning_content", "{}", ""}};

std::string text_of_part(const io::JsonField& part) {
  const std::string& type = part.at("type").string();
  if (type != "text") {
    throw Refusal(kBadRequest, "unsupported_parameter",
                  part.path() +
                      ".type: not supported: the model takes text; expected \"text\", got " +
                      part.at("type").json().dump(),
                  part.path() + ".type");
  }
  static constexpr FieldRule kPartRules[] = {{"type", "{}", ""}, {"text", "{}", ""}};
  check_fields(part, kPartRules);
  return part.at("text").string();
}

std::string text_of_content(const io::JsonField& message) {
  const auto content = message.find("content");
  if (!content) return {};
  if (content->is_string()) return content->string();
  if (!content->is_array()) content->fail("a string, null or a list of parts");
  std::string text;
  for (const io::JsonField& part : content->elements()) {
    if (!text.empty()) text += '\n';
    text += text_of_part(part);
  }
  return text;
}

Json message_json(const io::JsonField& message) {
  check_fields(message, kMessageRules);
  constexpr std::array<std::string_view, 4> kRoles{"system", "developer", "user", "assistant"};
  const io::JsonField role = message.at("role");
  if (role.string() == "tool" || role.string() == "function") {
    throw Refusal(kBadRequest, "unsupported_parameter",
                  role.path() + ": not supported: this version calls no tools", role.path());
  }
  if (std::ranges::find(kRoles, role.string()) == kRoles.end()) {
    role.fail("\"system\", \"developer\", \"user\" or \"assistant\"");
  }
  Json json{{"role", role.string()}, {"content", text_of_content(message)}};
  for (const char* name : {"name", "reasoning_content"}) {
    if (const auto text = message.find(name)) json[name] = text->string();
  }
  return json;
}

}  // namespace

std::vector<PromptPiece> read_conversation(const io::JsonField& body, const Engine& engine) {
  if (engine.chat_template() == nullptr) {
    throw Refusal(kBadRequest, "no_chat_template",
                  "messages: this model has no chat template; /v1/completions takes prompts",
                  "messages");
  }
  Json request{{"messages", Json::array()},
               {"add_generation_prompt", body.boolean_or("add_generation_prompt", true)}};
  const io::JsonField messages = body.at("messages");
  for (const io::JsonField& message : messages.elements()) {
    request["messages"].push_back(message_json(message));
  }
  if (request["messages"].empty()) messages.fail("at least one message");
  if (const auto more = body.find("chat_template_kwargs")) {
    if (!more->is_object()) more->fail("an object");
    request["chat_template_kwargs"] = Json::parse(more->json().dump());
  }
  try {
    return engine.chat_template()->render_json(request.dump(), "request");
  } catch (const ChatRefusal& refusal) {
    throw Refusal(kBadRequest, "chat_template_refused", refusal.what(), "messages");
  } catch (const Error& error) {
    throw Refusal(kBadRequest, "chat_template_failed", error.what(), "messages");
  }
}

FieldRules chat_rules() {
  static const std::vector<FieldRule> rules =
      with_common_rules({std::begin(kChatRules), std::end(kChatRules)});
  return rules;
}

Asked read_chat(const io::JsonField& body, const Reading& reading) {
  check_fields(body, chat_rules());
  Asked asked{.is_chat = true};
  read_common(body, reading, asked);
  const bool has_logprobs = body.boolean_or("logprobs", false);
  const auto top = body.find("top_logprobs");
  if (top && !has_logprobs && top->integer(0, kMostLogprobs) > 0) {
    top->fail("logprobs: true beside it");
  }
  if (has_logprobs) asked.options.logprobs = top ? top->integer(0, kMostLogprobs) : 0;

  Prompt prompt;
  prompt.tokens = reading.engine.tokenizer().encode_pieces(read_conversation(body, reading.engine));
  if (prompt.tokens.empty()) body.at("messages").fail("messages of at least one token");
  asked.prompts.push_back(std::move(prompt));

  std::optional<std::int64_t> most;
  for (const char* name : {"max_tokens", "max_completion_tokens"}) {
    if (const auto field = body.find(name)) most = field->integer(1, kMostTokens);
  }
  fit_context(reading, most, "messages", asked);
  return asked;
}

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
#include "api/answer.h"

namespace memlayers::api {
namespace {

Json token_json(const TokenTexts& texts, std::int32_t id, double logprob) {
  const std::string bytes = texts(id).bytes;
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"token", name_of(bytes)}, {"logprob", finite_logprob(logprob)}, {"bytes", list}};
}

class ChatShape final : public AnswerShape {
 public:
  ChatShape(const Asked& asked, const TokenTexts& texts) : asked_(asked), texts_(texts) {}
  const char* id_prefix() const override { return "chatcmpl-"; }
  const char* object() const override { return "chat.completion"; }
  const char* chunk_object() const override { return "chat.completion.chunk"; }

  Json whole(Choice& choice) const override {
    Json json{
        {"index", choice.index},
        {"message", {{"role", "assistant"}, {"content", choice.untold_text}, {"refusal", nullptr}}},
        {"logprobs", logprobs(choice)},
        {"finish_reason", finish_of(choice)}};
    if (asked_.explain_slots > 0) json["explain"] = slots_json(choice.untold, texts_);
    return json;
  }

  std::optional<Json> opening(const Choice& choice) const override {
    return chunk(choice, {{"role", "assistant"}, {"content", ""}, {"refusal", nullptr}});
  }

  Json delta(Choice& choice) const override {
    Json json = chunk(choice, {{"content", choice.untold_text}});
    json["logprobs"] = logprobs(choice);
    if (asked_.explain_slots > 0) json["explain"] = slots_json(choice.untold, texts_);
    return json;
  }

  Json ending(const Choice& choice) const override {
    Json json = chunk(choice, Json::object());
    json["finish_reason"] = finish_of(choice);
    return json;
  }

 private:
  static Json chunk(const Choice& choice, Json delta) {
    return {{"index", choice.index},
            {"delta", std::move(delta)},
            {"logprobs", nullptr},
            {"finish_reason", nullptr}};
  }

  Json logprobs(const Choice& choice) const {
    if (!asked_.options.logprobs) return nullptr;
    Json content = Json::array();
    for (const AnswerToken& token : choice.untold) {
      if (!token.logprobs || !token.logprobs->logprob) continue;
      Json json = token_json(texts_, token.id, *token.logprobs->logprob);
      json["top_logprobs"] = Json::array();
      for (const auto& [id, logprob] : token.logprobs->top) {
        json["top_logprobs"].push_back(token_json(texts_, id, logprob));
      }
      content.push_back(std::move(json));
    }
    return {{"content", content}, {"refusal", nullptr}};
  }

  const Asked& asked_;
  const TokenTexts& texts_;
};

}  // namespace

std::unique_ptr<AnswerShape> chat_shape(const Asked& asked, const TokenTexts& texts) {
  return std::make_unique<ChatShape>(asked, texts);
}

}  // namespace memlayers::api

// SPDX-License-Identifier: Apache-2.0
#include "api/answer.h"

namespace memlayers::api {
namespace {

// OpenAI's lists of /v1/completions: tokens, token_logprobs, top_logprobs, text_offset. The token
// itself is always among its alternatives, and no two of these share a name.
class LogprobLists {
 public:
  LogprobLists(const TokenTexts& texts, TextOffsets& offsets) : texts_(texts), offsets_(offsets) {}

  void add(std::int32_t token, const TokenLogprobs& of) {
    tokens_.push_back(texts_.name(token));
    text_offset_.push_back(offsets_.next(token));
    if (!of.logprob) {
      token_logprobs_.push_back(nullptr);
      top_logprobs_.push_back(nullptr);
      return;
    }
    token_logprobs_.push_back(finite_logprob(*of.logprob));
    top_logprobs_.push_back(alternatives(token, of));
  }

  Json json() const {
    return {{"tokens", tokens_},
            {"token_logprobs", token_logprobs_},
            {"top_logprobs", top_logprobs_},
            {"text_offset", text_offset_}};
  }

 private:
  Json alternatives(std::int32_t token, const TokenLogprobs& of) const {
    const std::string own = texts_.name(token);
    Json all = Json::object();
    for (const auto& [id, logprob] : of.top) {
      std::string name = texts_.name(id);
      // Tokens may spell the same text: a byte and the letter that it is.
      if (id != token && (name == own || all.contains(name))) {
        name = "token_id:" + std::to_string(id);
      }
      all[name] = finite_logprob(logprob);
    }
    if (!all.contains(own)) all[own] = finite_logprob(of.logprob.value_or(0));
    return all;
  }

  const TokenTexts& texts_;
  TextOffsets& offsets_;
  Json tokens_ = Json::array(), token_logprobs_ = Json::array(), top_logprobs_ = Json::array(),
       text_offset_ = Json::array();
};

class CompletionShape final : public AnswerShape {
 public:
  CompletionShape(const Asked& asked, const TokenTexts& texts) : asked_(asked), texts_(texts) {}
  const char* id_prefix() const override { return "cmpl-"; }
  const char* object() const override { return "text_completion"; }
  const char* chunk_object() const override { return "text_completion"; }

  Json whole(Choice& choice) const override {
    Json json = delta(choice);
    json["finish_reason"] = finish_of(choice);
    return json;
  }

  std::optional<Json> opening(const Choice& /*choice*/) const override { return std::nullopt; }

  Json delta(Choice& choice) const override {
    const bool echoes = asked_.echo && !choice.is_begun;
    Json json{{"index", choice.index},
              {"text", (echoes ? choice.prompt->text : "") + choice.untold_text},
              {"logprobs", asked_.options.logprobs ? logprobs(choice) : Json()},
              {"finish_reason", nullptr}};
    if (asked_.explain_slots > 0) json["explain"] = slots_json(choice.untold, texts_);
    return json;
  }

  Json ending(const Choice& choice) const override {
    return {{"index", choice.index},
            {"text", ""},
            {"logprobs", nullptr},
            {"finish_reason", finish_of(choice)}};
  }

 private:
  Json logprobs(Choice& choice) const {
    LogprobLists lists(texts_, choice.offsets);
    for (const TokenLogprobs& token : choice.prompt_logprobs) lists.add(token.token, token);
    for (const AnswerToken& token : choice.untold) {
      if (token.logprobs) lists.add(token.id, *token.logprobs);
    }
    return lists.json();
  }

  const Asked& asked_;
  const TokenTexts& texts_;
};

}  // namespace

std::unique_ptr<AnswerShape> completion_shape(const Asked& asked, const TokenTexts& texts) {
  return std::make_unique<CompletionShape>(asked, texts);
}

}  // namespace memlayers::api

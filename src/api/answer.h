// SPDX-License-Identifier: Apache-2.0
// An answer as OpenAI writes it, whole or in events.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/engine.h"
#include "api/json.h"
#include "api/request.h"
#include "api/token_text.h"

namespace memlayers::api {

struct AnswerToken {
  std::int32_t id = 0;
  std::optional<TokenLogprobs> logprobs = {};
  std::vector<TokenSlot> slots = {};
};

// One sequence's answer, as far as it has come.
struct Choice {
  explicit Choice(const Tokenizer& tokenizer) : offsets(tokenizer) {}

  std::int64_t index = 0;
  const Prompt* prompt = nullptr;
  std::vector<std::int32_t> ids = {};  // all, also one that ended it
  std::string text = {};               // all that is certain
  std::optional<FinishReason> finish = {};
  std::optional<double> memory_confidence = {};
  // What no event has told yet; of an answer in one piece, everything.
  std::vector<TokenLogprobs> prompt_logprobs = {};
  std::vector<AnswerToken> untold = {};  // where log-probabilities or slots are asked for
  std::string untold_text = {};
  bool is_begun = false;  // an event told of it
  TextOffsets offsets;    // of the tokens that were told
};

const char* finish_of(const Choice& choice);  // "": it goes on

// The members of "choices" of one kind of completions.
class AnswerShape {
 public:
  virtual ~AnswerShape() = default;
  virtual const char* id_prefix() const = 0;
  virtual const char* object() const = 0;
  virtual const char* chunk_object() const = 0;
  virtual Json whole(Choice& choice) const = 0;
  virtual std::optional<Json> opening(const Choice& choice) const = 0;  // before the first text
  virtual Json delta(Choice& choice) const = 0;                         // what is untold
  virtual Json ending(const Choice& choice) const = 0;
};
// `asked` and `texts` must outlive them.
std::unique_ptr<AnswerShape> completion_shape(const Asked& asked, const TokenTexts& texts);
std::unique_ptr<AnswerShape> chat_shape(const Asked& asked, const TokenTexts& texts);

// Of each token, the slots it rested on: [{token, id, slots: [...]}].
Json slots_json(const std::vector<AnswerToken>& tokens, const TokenTexts& texts);
// JSON has no infinity.
double finite_logprob(double logprob);

}  // namespace memlayers::api

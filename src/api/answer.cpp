// SPDX-License-Identifier: Apache-2.0
#include "api/answer.h"

#include <algorithm>

#include "text/finish_reason.h"

namespace memlayers::api {

const char* finish_of(const Choice& choice) {
  return choice.finish ? text::name_of(*choice.finish) : "";
}

Json slots_json(const std::vector<AnswerToken>& tokens, const TokenTexts& texts) {
  Json all = Json::array();
  for (const AnswerToken& token : tokens) {
    Json slots = Json::array();
    for (const TokenSlot& slot : token.slots) {
      slots.push_back({{"layer", slot.layer},
                       {"head", slot.head},
                       {"slot", slot.slot},
                       {"weight", slot.weight},
                       {"patch", nullptr}});
      if (slot.patch) slots.back()["patch"] = *slot.patch;
    }
    all.push_back({{"token", texts.name(token.id)}, {"id", token.id}, {"slots", slots}});
  }
  return all;
}

double finite_logprob(double logprob) {
  constexpr double kLeast = -9999;  // as vLLM writes it
  return std::max(logprob, kLeast);
}

}  // namespace memlayers::api

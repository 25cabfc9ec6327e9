// SPDX-License-Identifier: Apache-2.0
#include "memlayers/generate_options.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "memlayers/error.h"

namespace memlayers {
namespace {

template <class Number>
void check(bool is_right, const char* field, const char* wanted, const Number& got) {
  if (!is_right) {
    throw Error(std::string(field) + ": expected " + wanted + ", got " + std::to_string(got));
  }
}

}  // namespace

void GenerateOptions::validate() const {
  constexpr std::int64_t kMostLogprobs = 1000;
  check(max_tokens >= 0, "max_tokens", "0 or more", max_tokens);
  check(temperature >= 0 && std::isfinite(temperature), "temperature", "a number >= 0",
        temperature);
  check(!top_k || *top_k >= 1, "top_k", "at least 1", top_k.value_or(0));
  check(!top_p || (*top_p > 0 && *top_p <= 1), "top_p", "a number in (0, 1]", top_p.value_or(0));
  check(!min_p || (*min_p >= 0 && *min_p <= 1), "min_p", "a number in [0, 1]", min_p.value_or(0));
  check(repetition_penalty > 0 && std::isfinite(repetition_penalty), "repetition_penalty",
        "a number > 0", repetition_penalty);
  check(std::isfinite(presence_penalty), "presence_penalty", "a finite number", presence_penalty);
  check(std::isfinite(frequency_penalty), "frequency_penalty", "a finite number",
        frequency_penalty);
  for (const auto& [token, bias] : logit_bias) {
    check(token >= 0, "logit_bias", "token ids of 0 or more", token);
    check(std::isfinite(bias), "logit_bias", "finite numbers", bias);
  }
  if (std::ranges::find(stop, "") != stop.end()) {
    throw Error("stop: expected text, got \"\"");
  }
  check(!logprobs || (*logprobs >= 0 && *logprobs <= kMostLogprobs), "logprobs", "0 to 1000",
        logprobs.value_or(0));
  if (prompt_logprobs && !logprobs) {
    throw Error("prompt_logprobs: expected logprobs beside it, got none");
  }
}

}  // namespace memlayers

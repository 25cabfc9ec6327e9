// SPDX-License-Identifier: Apache-2.0
// Requests of a decoder, drawn at random, and what comes of them.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "memlayers/decoder.h"
#include "support/tiny_model.h"

namespace memlayers::testing {

// What came of a sequence, bit for bit.
struct Answer {
  std::vector<std::int32_t> tokens;
  std::string text, error;
  std::vector<double> numbers;  // log-probabilities, the prompt's first
  std::vector<std::int32_t> top;
  std::optional<FinishReason> finish;
  bool operator==(const Answer&) const = default;
};

inline void note(const TokenLogprobs& place, Answer& answer) {
  if (place.logprob) answer.numbers.push_back(*place.logprob);
  for (const auto& [token, logprob] : place.top) {
    answer.top.push_back(token);
    answer.numbers.push_back(logprob);
  }
}

inline void add(const DecodedToken& made, Answer& answer) {
  if (made.token) answer.tokens.push_back(*made.token);
  answer.text += made.text;
  for (const TokenLogprobs& place : made.prompt_logprobs) note(place, answer);
  if (made.logprobs) note(*made.logprobs, answer);
  answer.finish = made.finish;
  answer.error = made.error;
}

struct Request {
  std::vector<std::int32_t> prompt;
  GenerateOptions options;
};

inline Answer alone(Decoder& decoder, const Request& request) {
  decoder.join(request.prompt, request.options);
  Answer answer;
  while (!decoder.is_idle()) {
    for (const DecodedToken& made : decoder.step()) add(made, answer);
  }
  return answer;
}

// Several pages long, with a memory layer of every part.
inline ModelConfig long_config() {
  ModelConfig config = tiny_model_config();
  config.context = 200;
  config.heads = 4;
  config.kv_heads = 2;
  config.memory->variant = MemoryVariant::kMemoryPlus;
  config.memory->gate = true;
  return config;
}

inline Decoder make_decoder(const ModelConfig& config, const DecoderOptions& options = {}) {
  return {tiny_generator(config).model(), tiny_tokenizer(), options};
}

inline GenerateOptions drawing(std::int64_t max_tokens) {
  GenerateOptions options;
  options.max_tokens = max_tokens;
  options.temperature = 1;
  options.seed = 9;
  options.ignore_eos = true;
  return options;
}

class Draw {
 public:
  // shared: prompts begin like one of two long ones, mostly.
  explicit Draw(unsigned seed, bool shared = false) : generator_(seed), shares_(shared) {}
  std::int64_t below(std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(generator_);
  }
  bool often() { return below(3) != 0; }

  Request request() {
    Request request;
    if (shares_ && often()) {
      const std::int64_t same = below(150), which = below(2);
      for (std::int64_t i = 0; i < same; ++i) {
        request.prompt.push_back(static_cast<std::int32_t>(3 + (i * i + 31 * which * i) % 297));
      }
    }
    const std::int64_t length = often() || shares_ ? 1 + below(20) : 1 + below(150);
    for (std::int64_t i = 0; i < length; ++i) {
      request.prompt.push_back(static_cast<std::int32_t>(3 + below(297)));
    }
    GenerateOptions& options = request.options;
    options.max_tokens = below(30);
    options.temperature = often() ? 0.5 + static_cast<double>(below(4)) : 0;
    options.seed = static_cast<std::uint64_t>(below(1000));
    if (!often()) options.top_k = 1 + below(40);
    if (!often()) options.top_p = 0.9;
    if (!often()) options.min_p = 0.01;
    if (!often()) options.repetition_penalty = 1.3;
    if (!often()) options.presence_penalty = 0.7;
    if (!often()) options.frequency_penalty = -0.2;
    if (!often()) options.logit_bias = {{static_cast<std::int32_t>(below(300)), 4}};
    if (!often()) options.stop = {"e", "the", "a "};
    if (!often()) options.stop_tokens = {static_cast<std::int32_t>(below(300))};
    options.ignore_eos = often();
    if (!often()) options.logprobs = below(5);
    options.prompt_logprobs = options.logprobs && often();
    return request;
  }

 private:
  std::mt19937 generator_;
  bool shares_;
};

}  // namespace memlayers::testing

// SPDX-License-Identifier: Apache-2.0
// How a text is continued, and what comes of it, token by token. Knows nothing of torch.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace memlayers {

// What may come next in one answer; it moves on with each token.
class TokenFilter {
 public:
  virtual ~TokenFilter() = default;
  // Takes the logits (vocab_size) of all tokens that may not come next to -infinity; one is left.
  // An end token may come where the answer is whole.
  virtual void apply(std::span<float> logits) const = 0;
  virtual void take(std::int32_t token) = 0;  // it came; one that apply() left
};

// The answers that are allowed, say those of a JSON schema. Immutable; for use from several
// threads.
class Grammar {
 public:
  virtual ~Grammar() = default;
  virtual std::unique_ptr<TokenFilter> begin() const = 0;  // at the first token of an answer
};

// How one sequence goes on. In this order: logit_bias is added to the logits, penalties are taken
// off, the grammar's filter is applied, the temperature divides; top_k, top_p and min_p leave the
// most likely tokens; one is drawn.
struct GenerateOptions {
  std::int64_t max_tokens = 128;
  double temperature = 0;                  // 0: greedy
  std::optional<std::int64_t> top_k = {};  // keep the k most likely tokens
  std::optional<double> top_p = {};        // keep the smallest set with this much probability
  std::optional<double> min_p =
      {};  // keep tokens of at least this share of the greatest probability
  // Logits of tokens that the prompt or the answer holds are divided by it where they are positive,
  // else multiplied (as Hugging Face's); 1: none.
  double repetition_penalty = 1;
  // Taken off the logits of tokens that the answer holds: once, and for each time (as OpenAI's).
  double presence_penalty = 0, frequency_penalty = 0;
  std::vector<std::pair<std::int32_t, double>> logit_bias = {};  // token, what to add
  std::uint64_t seed = 0;              // token number n of any sequence draws from (seed, n)
  std::vector<std::string> stop = {};  // text that ends a generation; not part of the result
  std::vector<std::int32_t> stop_tokens = {};  // these end it too, and are no part of its text
  bool ignore_eos = false;  // go on behind the model's and tokenizer's end tokens
  // The log-probability of each token, and of so many of the most likely ones at its place.
  std::optional<std::int64_t> logprobs = {};
  bool prompt_logprobs = false;                 // of the prompt's tokens as well; needs logprobs
  std::shared_ptr<const Grammar> grammar = {};  // null: any answer

  void validate() const;  // throws Error naming the first wrong field
};

enum class FinishReason {
  kStop,    // an end token, a stop token or a stop string
  kLength,  // max_tokens or the context
  kError,   // what was computed is no answer
};

// Of one place: from the logits as the model gives them, over its whole vocabulary.
struct TokenLogprobs {
  std::int32_t token = 0;
  std::optional<double> logprob = {};  // absent for the first token of a prompt
  // The most likely tokens, the first first, of equals the lowest id; `token` is among them only
  // where it belongs there, with the same number.
  std::vector<std::pair<std::int32_t, double>> top = {};
};

// A slot of the model's memory that was read where a token was predicted.
struct ReadSlot {
  std::int64_t layer = 0, head = 0, slot = 0;
  double weight = 0;  // softmax weight of the read
  bool operator==(const ReadSlot&) const = default;
};

// What a step gave one sequence.
struct DecodedToken {
  std::int64_t sequence = 0;
  std::optional<std::int32_t> token = {};  // absent where a sequence ends without one
  bool is_end = false;                     // the token ended it, and is no part of the answer
  std::string text = {};                   // what is certain now; cut at stop strings
  std::optional<TokenLogprobs> logprobs = {};
  std::vector<TokenLogprobs> prompt_logprobs = {};  // with the first token
  std::optional<FinishReason> finish = {};          // then the sequence has left
  std::string error = {};                           // for kError: what is wrong
  bool is_fault = false;  // for kError: memory or a disk gave out, and not the numbers
  // Where the sequence asks for them: the slots of greatest weight, the greatest first.
  std::vector<ReadSlot> slots = {};
};

}  // namespace memlayers

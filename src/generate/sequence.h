// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "generate/prefix_cache.h"
#include "generate/sampler.h"
#include "generate/step_reads.h"
#include "generate/text_cutter.h"
#include "memlayers/decoder.h"

namespace memlayers::generate {

// Throws Error where the tokenizer has tokens that the model has not.
void check_fit(const ModelConfig& model, const Tokenizer& tokenizer);
// Throws Error for a prompt that the model cannot take.
void check_prompt(const ModelConfig& model, std::span<const std::int32_t> prompt);
// The tokens that end an answer, whatever its options say beside.
std::set<std::int32_t> end_tokens(const ModelConfig& model, const Tokenizer& tokenizer);

// The text of an answer as its tokens come.
struct AnswerText {
  StreamDecoder decoder;
  TextCutter cutter;

  std::string push(std::int32_t token) { return cutter.push(decoder.push(token)); }
  std::string finish() {
    std::string text = cutter.push(decoder.finish());
    return text + cutter.finish();
  }
};

// One sequence of a decoder: what came of it and what it does next.
class Sequence {
 public:
  // steps: tokens that it may give.
  // slots: of each token, as DecodedToken::slots.
  Sequence(std::int64_t id, std::vector<std::int32_t> prompt, const GenerateOptions& options,
           std::int64_t steps, std::int64_t slots, KvCache cache, std::optional<AnswerText> text);

  std::int64_t id() const { return id_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }
  // Those that the cache does not hold yet.
  std::span<const std::int32_t> pending() const {
    return std::span(tokens_).subspan(static_cast<std::size_t>(cache_.length()));
  }
  // There is nothing to compute: it ends without a token.
  bool is_empty() const { return steps_ == 0 && !options_.prompt_logprobs; }
  bool needs_all_logits() const { return options_.prompt_logprobs && answered_ == 0; }
  std::int64_t slots() const { return slots_; }
  std::int64_t cached_tokens() const { return cached_tokens_; }

  // The tokens that followed the last ones where these stood before: at most `most`, and no more
  // than have proved right of late.
  std::vector<std::int32_t> draft(std::int64_t most) const;
  // Of so many, this many were right.
  void learn_of_draft(std::int64_t drafted, std::int64_t accepted);

  // Puts the pages that are full by now into `prefixes`. `reads`, of the step that took in the last
  // tokens, of which the first is row `row` and position `begin`: null where memory is left out.
  void keep_pages(PrefixCache& prefixes, const StepReads* reads, std::int64_t row,
                  std::int64_t begin);
  // The cache begins with pages that end here.
  void begin_behind(PrefixCache::Place place) { place_ = std::move(place); }

  // What comes of the logits (the model's vocabulary) behind token number `place`: of a prompt's
  // place its next token's log-probabilities; of the last known token the next one, drawn from the
  // first `vocab_size` logits. Changes nothing, so that places may be read side by side. Throws
  // Error for logits that are not finite.
  struct Read {
    std::optional<std::int32_t> token;
    std::optional<TokenLogprobs> logprobs;
  };
  Read read(std::int64_t place, std::span<const float> logits, std::int64_t vocab_size) const;
  // The same, place by place, taken in; what is ready of it is added to `to`.
  void take(Read read, const std::set<std::int32_t>& ends, DecodedToken& to);

 private:
  void end(FinishReason reason, DecodedToken& to);

  std::int64_t id_;
  GenerateOptions options_;
  std::int64_t prompt_tokens_, steps_, answered_ = 0;
  std::vector<std::int32_t> tokens_;  // the prompt's and the answer's
  KvCache cache_;
  std::optional<AnswerText> text_;
  SeenTokens seen_;
  std::unique_ptr<TokenFilter> filter_;  // null: any token may come
  std::vector<TokenLogprobs> prompt_logprobs_;
  std::int64_t slots_, cached_tokens_, draft_length_;
  PrefixCache::Place place_;              // of the last full page
  std::vector<std::int64_t> page_reads_;  // of the tokens of the page that is not full
};

}  // namespace memlayers::generate

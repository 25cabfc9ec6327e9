// SPDX-License-Identifier: Apache-2.0
#include "generate/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "generate/logprobs.h"
#include "memlayers/error.h"

namespace memlayers::generate {

void check_fit(const ModelConfig& model, const Tokenizer& tokenizer) {
  if (tokenizer.vocab_size() <= model.vocab_size) return;
  throw Error(tokenizer.file_name() + ": expected at most " + std::to_string(model.vocab_size) +
              " tokens, the model's vocab_size, got " + std::to_string(tokenizer.vocab_size()));
}

void check_prompt(const ModelConfig& model, std::span<const std::int32_t> prompt) {
  if (prompt.empty()) throw Error("prompt: expected at least one token, got none");
  if (static_cast<std::int64_t>(prompt.size()) > model.context) {
    throw Error("prompt: expected at most " + std::to_string(model.context) +
                " tokens, the model's context, got " + std::to_string(prompt.size()));
  }
  for (const std::int32_t token : prompt) {
    if (token >= 0 && token < model.vocab_size) continue;
    throw Error("prompt: expected token ids in [0, " + std::to_string(model.vocab_size) +
                "), got " + std::to_string(token));
  }
}

std::set<std::int32_t> end_tokens(const ModelConfig& model, const Tokenizer& tokenizer) {
  std::set<std::int32_t> ends;
  for (const std::int64_t token : model.eos_tokens) ends.insert(static_cast<std::int32_t>(token));
  if (ends.empty() && tokenizer.eos()) ends.insert(*tokenizer.eos());
  return ends;
}

namespace {

constexpr std::int64_t kFirstDraft = 2;

}  // namespace

Sequence::Sequence(std::int64_t id, std::vector<std::int32_t> prompt,
                   const GenerateOptions& options, std::int64_t steps, std::int64_t slots,
                   KvCache cache, std::optional<AnswerText> text)
    : id_(id),
      options_(options),
      prompt_tokens_(static_cast<std::int64_t>(prompt.size())),
      steps_(steps),
      tokens_(std::move(prompt)),
      cache_(std::move(cache)),
      text_(std::move(text)),
      seen_(tokens_),
      filter_(options.grammar ? options.grammar->begin() : nullptr),
      slots_(slots),
      cached_tokens_(cache_.length()),
      draft_length_(kFirstDraft) {
  if (options.prompt_logprobs) prompt_logprobs_.push_back({.token = tokens_[0]});
}

Sequence::Read Sequence::read(std::int64_t place, std::span<const float> logits,
                              std::int64_t vocab_size) const {
  check_logits(logits);
  const std::int64_t top = options_.logprobs.value_or(0);
  Read read;
  if (place + 1 < prompt_tokens_) {
    read.logprobs = logprobs_of(logits, tokens_[static_cast<std::size_t>(place + 1)], top);
    return read;
  }
  if (steps_ == 0) return read;
  const std::span<const float> known = logits.first(static_cast<std::size_t>(vocab_size));
  if (filter_ || changes_logits(options_)) {
    std::vector<float> changed(known.begin(), known.end());
    seen_.change(options_, changed);
    if (filter_) filter_->apply(changed);
    read.token = sample(changed, options_, answered_);
  } else {
    read.token = sample(known, options_, answered_);
  }
  if (options_.logprobs) read.logprobs = logprobs_of(logits, *read.token, top);
  return read;
}

void Sequence::take(Read read, const std::set<std::int32_t>& ends, DecodedToken& to) {
  if (!read.token && read.logprobs) {
    prompt_logprobs_.push_back(std::move(*read.logprobs));
    return;
  }
  to.prompt_logprobs = std::exchange(prompt_logprobs_, {});
  if (!read.token) return end(FinishReason::kLength, to);
  const std::int32_t token = *read.token;
  to.token = token;
  to.logprobs = std::move(read.logprobs);
  ++answered_;
  if ((!options_.ignore_eos && ends.contains(token)) ||
      std::ranges::find(options_.stop_tokens, token) != options_.stop_tokens.end()) {
    to.is_end = true;
    return end(FinishReason::kStop, to);
  }
  tokens_.push_back(token);
  seen_.add(token);
  if (filter_) filter_->take(token);
  if (text_) to.text = text_->push(token);
  if (text_ && text_->cutter.is_stopped()) {
    to.finish = FinishReason::kStop;
  } else if (answered_ == steps_) {
    end(FinishReason::kLength, to);
  }
}

std::vector<std::int32_t> Sequence::draft(std::int64_t most) const {
  constexpr std::int64_t kLongest = 3, kShortest = 2;  // of what has to be the same
  most = std::min({most, draft_length_, steps_ - answered_ - 1});
  const auto length = static_cast<std::int64_t>(tokens_.size());
  if (most <= 0 || pending().size() != 1) return {};
  const auto at = [&](std::int64_t i) { return tokens_.begin() + static_cast<std::ptrdiff_t>(i); };
  for (std::int64_t same = kLongest; same >= kShortest; --same) {
    for (std::int64_t end = length - 1; end >= same; --end) {  // the latest place first
      if (!std::equal(at(end - same), at(end), at(length - same))) continue;
      return {at(end), at(std::min(length, end + most))};
    }
  }
  return {};
}

void Sequence::learn_of_draft(std::int64_t drafted, std::int64_t accepted) {
  constexpr std::int64_t kMost = 64;
  if (accepted == drafted) {
    draft_length_ = std::min(kMost, 2 * draft_length_);
  } else {
    draft_length_ = std::max<std::int64_t>(1, accepted);
  }
}

void Sequence::keep_pages(PrefixCache& prefixes, const StepReads* reads, std::int64_t row,
                          std::int64_t begin) {
  for (std::int64_t token = begin; token < cache_.length(); ++token, ++row) {
    if (reads != nullptr) reads->add_slots(row, page_reads_);
    if ((token + 1) % KvCache::kPageTokens != 0) continue;
    const std::int64_t page = token / KvCache::kPageTokens;
    place_ = prefixes.add(
        place_,
        std::span(tokens_).subspan(static_cast<std::size_t>(page * KvCache::kPageTokens),
                                   static_cast<std::size_t>(KvCache::kPageTokens)),
        cache_.page(page), std::exchange(page_reads_, {}),
        {cache_.rows(), cache_.leaves_out_memory()});
    cache_.share(page, PrefixCache::page_of(place_));
  }
}

void Sequence::end(FinishReason reason, DecodedToken& to) {
  to.finish = reason;
  if (!text_) return;
  to.text += text_->finish();
  if (text_->cutter.is_stopped()) to.finish = FinishReason::kStop;
}

}  // namespace memlayers::generate

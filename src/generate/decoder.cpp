// SPDX-License-Identifier: Apache-2.0
#include "memlayers/decoder.h"

#include <torch/types.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "generate/decoder_state.h"
#include "memlayers/error.h"

namespace memlayers {

using generate::Sequence;

void DecoderOptions::validate() const {
  const auto check = [](bool is_right, const char* field, const char* wanted, std::int64_t got) {
    if (is_right) return;
    throw Error(std::string(field) + ": expected " + wanted + ", got " + std::to_string(got));
  };
  check(prefill_tokens >= 1, "prefill_tokens", "at least 1", prefill_tokens);
  check(!cache_bytes || *cache_bytes >= 0, "cache_bytes", "0 or more", cache_bytes.value_or(0));
  check(!sequences || *sequences >= 1, "sequences", "at least 1", sequences.value_or(0));
  check(drafted_tokens >= 0, "drafted_tokens", "0 or more", drafted_tokens);
}

Decoder::Decoder(Llama model, std::shared_ptr<const Tokenizer> tokenizer,
                 const DecoderOptions& options) {
  options.validate();
  generate::check_fit(model->config(), *tokenizer);
  model->eval();
  state_ =
      std::make_unique<State>(State{.model = model,
                                    .tokenizer = tokenizer,
                                    .options = options,
                                    .ends = generate::end_tokens(model->config(), *tokenizer),
                                    .budget = std::make_shared<CacheBudget>(options.cache_bytes),
                                    .sequences = {}});
  if (options.keeps_prefixes) state_->prefixes = std::make_unique<generate::PrefixCache>();
}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder& Decoder::operator=(Decoder&&) noexcept = default;

std::int64_t Decoder::join(std::vector<std::int32_t> prompt, const GenerateOptions& options,
                           SequenceMemory memory) {
  State& state = *state_;
  const ModelConfig& config = state.model->config();
  options.validate();
  generate::check_prompt(config, prompt);
  if (state.options.sequences && sequences() >= *state.options.sequences) {
    throw NoPlace("decoder: expected at most " + std::to_string(*state.options.sequences) +
                  " sequences at once, got one more");
  }
  if (memory.slots < 0) {
    throw Error("slots: expected 0 or more, got " + std::to_string(memory.slots));
  }
  const auto length = static_cast<std::int64_t>(prompt.size());
  const std::int64_t steps = std::min(options.max_tokens, config.context - length);
  if (!memory.rows && !state.model->pool().is_empty()) {
    memory.rows = state.model->pool()->snapshot();
  }
  generate::PrefixCache::Found found;
  if (state.prefixes && !options.prompt_logprobs) {  // the last token is computed in any case
    found = state.prefixes->find(std::span(prompt).first(prompt.size() - 1),
                                 {memory.rows, memory.is_off});
  }
  const std::int64_t cached = static_cast<std::int64_t>(found.pages.size()) * KvCache::kPageTokens;
  state.make_room(KvCache::bytes_of(*state.model, length + steps) -
                  KvCache::bytes_of(*state.model, cached));
  KvCache cache = [&] {
    try {
      return KvCache(*state.model, length + steps, state.budget, std::move(found.pages));
    } catch (const Error& error) {
      throw NoPlace(error.what());
    }
  }();
  if (memory.rows) cache.set_rows(std::move(*memory.rows));
  if (memory.is_off) cache.leave_out_memory();
  std::optional<generate::AnswerText> text;
  if (state.options.gives_text) {
    text = {StreamDecoder(state.tokenizer, prompt), generate::TextCutter(options.stop)};
  }
  state.sequences.push_back(std::make_unique<Sequence>(state.next_id, std::move(prompt), options,
                                                       steps, memory.slots, std::move(cache),
                                                       std::move(text)));
  state.sequences.back()->begin_behind(std::move(found.last));
  return state.next_id++;
}

bool Decoder::leave(std::int64_t sequence) {
  const auto found = state_->find(sequence);
  if (found == state_->sequences.end()) return false;
  state_->sequences.erase(found);
  return true;
}

std::vector<DecodedToken> Decoder::step() {
  State& state = *state_;
  const c10::InferenceMode inference;
  std::vector<State::Turn> turns = state.next_turns();
  for (State::Turn& turn : turns) {
    if (turn.count == 0) turn.sequence->take({}, state.ends, turn.next());
  }
  // Those that read one version of the pool stand together, and read it in one go; those that read
  // none come last (StepReads).
  const auto busy =
      std::ranges::partition(turns, [](const State::Turn& turn) { return turn.count == 0; });
  std::ranges::stable_sort(busy, [](const State::Turn& a, const State::Turn& b) {
    const KvCache &first = a.sequence->cache(), &second = b.sequence->cache();
    if (first.leaves_out_memory() != second.leaves_out_memory()) return second.leaves_out_memory();
    return first.rows() < second.rows();
  });
  if (!busy.empty()) state.run({busy.data(), busy.size()});

  std::vector<DecodedToken> made;
  std::ranges::sort(turns, {}, [](const State::Turn& turn) { return turn.sequence->id(); });
  for (State::Turn& turn : turns) {
    state.drafted += static_cast<std::int64_t>(turn.draft.size());
    state.accepted += turn.accepted;
    const bool has_ended = turn.has_ended();
    const std::int64_t id = turn.sequence->id();
    std::ranges::move(turn.made, std::back_inserter(made));
    if (has_ended) leave(id);
  }
  return made;
}

void Decoder::set_prefill_tokens(std::int64_t tokens) {
  DecoderOptions options = state_->options;
  options.prefill_tokens = tokens;
  options.validate();
  state_->options = options;
}

std::int64_t Decoder::cached_tokens(std::int64_t sequence) const {
  const auto found = state_->find(sequence);
  return found == state_->sequences.end() ? 0 : (*found)->cached_tokens();
}

std::int64_t Decoder::drafted_tokens() const { return state_->drafted; }
std::int64_t Decoder::accepted_tokens() const { return state_->accepted; }

std::int64_t Decoder::sequences() const {
  return static_cast<std::int64_t>(state_->sequences.size());
}

std::int64_t Decoder::cache_bytes() const { return state_->budget->bytes(); }

std::optional<std::uint64_t> Decoder::pool_version(std::int64_t sequence) const {
  const auto found = state_->find(sequence);
  if (found == state_->sequences.end()) return std::nullopt;
  return (*found)->cache().pool_version();
}

const Llama& Decoder::model() const { return state_->model; }

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "generate/decoder_state.h"

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

#include "memlayers/error.h"
#include "nn/free_memory.h"
#include "nn/lookup_hook.h"

namespace memlayers {

using generate::Sequence;
using generate::StepReads;

namespace {

std::string sentence_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  if (of_torch == nullptr) return error.what();
  const auto no_memory = nn::out_of_memory(*of_torch);
  return no_memory ? "step: " + *no_memory : of_torch->what_without_backtrace();
}

}  // namespace

// So that so many bytes fit, where letting go of what no sequence holds is enough.
void Decoder::State::make_room(std::int64_t bytes) {
  if (!prefixes || !budget->most_bytes()) return;
  const auto missing = [&] { return budget->bytes() + bytes - *budget->most_bytes(); };
  if (missing() > 0 && missing() > prefixes->free_bytes()) return;
  while (missing() > 0 && prefixes->drop_one()) {
  }
}

std::vector<Decoder::State::Turn> Decoder::State::next_turns() const {
  std::vector<Turn> turns;
  std::int64_t left = options.prefill_tokens;
  for (const auto& sequence : sequences) {
    auto count = static_cast<std::int64_t>(sequence->pending().size());
    if (sequence->is_empty()) {
      count = 0;
    } else if (count > 1) {
      count = std::min(count, left);
      left -= count;
      if (count == 0) continue;
    }
    turns.push_back({sequence.get(), count});
  }
  add_drafts(turns);
  return turns;
}

void Decoder::State::add_drafts(std::vector<Turn>& turns) const {
  std::vector<Turn*> going;
  for (Turn& turn : turns) {
    if (turn.count == 1 && turn.sequence->pending().size() == 1) going.push_back(&turn);
  }
  if (going.empty()) return;
  const std::int64_t most = options.drafted_tokens / static_cast<std::int64_t>(going.size());
  if (most == 0) return;
  for (Turn* turn : going) {
    if (!turn->sequence->needs_all_logits()) turn->draft = turn->sequence->draft(most);
  }
}

// Runs all of them, or, where that fails, each alone: with the same results for those that do not.
void Decoder::State::run(std::span<Turn> turns) {
  std::vector<std::vector<std::int32_t>> with_drafts;  // the tokens of those that have one
  with_drafts.reserve(turns.size());
  std::vector<SequenceTokens> next;
  std::vector<std::int64_t> lengths;
  bool is_watched = prefixes != nullptr && !model->pool().is_empty();
  for (const Turn& turn : turns) {
    std::span<const std::int32_t> tokens =
        turn.sequence->pending().first(static_cast<std::size_t>(turn.count));
    if (!turn.draft.empty()) {
      auto& all = with_drafts.emplace_back(tokens.begin(), tokens.end());
      all.insert(all.end(), turn.draft.begin(), turn.draft.end());
      tokens = all;
    }
    next.push_back({&turn.sequence->cache(), tokens});
    lengths.push_back(turn.sequence->cache().length());
    is_watched = is_watched || turn.sequence->slots() > 0;
  }
  std::optional<StepReads> reads;
  at::Tensor hidden;
  try {
    std::optional<nn::LookupHook> hook;
    if (is_watched) {
      reads.emplace(model);
      hook.emplace([&](const MemoryLayerImpl& layer, const at::Tensor& slots, at::Tensor& weights) {
        reads->add(layer, slots, weights);
      });
    }
    hidden = model->step(next);
  } catch (const std::exception& error) {
    if (turns.size() == 1) return turns[0].fail(sentence_of(error), /*is_fault=*/true);
    for (Turn& turn : turns) run({&turn, 1});
    return;
  }
  try {
    read(turns, hidden, reads ? &*reads : nullptr);
    if (prefixes) note(turns, lengths, reads ? &*reads : nullptr);
  } catch (const std::exception& error) {
    for (Turn& turn : turns) turn.fail(sentence_of(error), /*is_fault=*/true);
  }
}

std::vector<Decoder::State::Place> Decoder::State::places_of(std::span<Turn> turns) const {
  std::vector<Place> places;
  std::int64_t row = 0;
  for (Turn& turn : turns) {
    const std::int64_t end = turn.sequence->cache().length(), begin = end - turn.rows();
    const std::int64_t known = begin + turn.count;
    // The next token comes now.
    const bool is_known = !turn.draft.empty() || turn.sequence->pending().empty();
    for (std::int64_t token = begin; token < end; ++token, ++row) {
      const bool gives = is_known && token + 1 >= known;
      if (token >= known) {
        places.back().rows.push_back({token, row, gives});
      } else if (gives || turn.sequence->needs_all_logits()) {
        places.push_back({&turn, {{token, row, gives}}});
      }
    }
  }
  return places;
}

void Decoder::State::read(std::span<Turn> turns, const at::Tensor& hidden, const StepReads* reads) {
  constexpr std::size_t kAtOnce = 64;  // rows whose logits are in memory together, or one draft's
  std::vector<Place> places = places_of(turns);
  for (std::size_t first = 0, end = 0; first < places.size(); first = end) {
    std::size_t rows = 0;
    while (end < places.size() && (end == first || rows + places[end].rows.size() <= kAtOnce)) {
      rows += places[end++].rows.size();
    }
    read(std::span(places).subspan(first, end - first), hidden, reads);
  }
}

void Decoder::State::read(std::span<Place> places, const at::Tensor& hidden,
                          const StepReads* reads) {
  std::vector<std::int64_t> rows;
  std::vector<std::size_t> firsts;
  for (const Place& place : places) {
    firsts.push_back(rows.size());
    for (const Row& row : place.rows) rows.push_back(row.row);
  }
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  const at::Tensor logits =
      model->step_logits(hidden.index_select(0, torch::tensor(rows, torch::kLong))).contiguous();
  const std::span<const float> scores(logits.const_data_ptr<float>(), rows.size() * vocab);
  at::parallel_for(
      0, static_cast<std::int64_t>(places.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
          Place& place = places[i];
          const auto of_place = scores.subspan(firsts[i] * vocab, place.rows.size() * vocab);
          if (place.turn->draft.empty()) {
            read(*place.turn, place.rows.front(), of_place);
          } else {
            take_drafted(place, of_place, reads);
          }
        }
      });
  for (Place& place : places) {
    if (place.turn->draft.empty()) take(*place.turn, place.rows.front(), reads);
  }
}

void Decoder::State::read(const Turn& turn, Row& row, std::span<const float> logits) const {
  try {
    row.read = turn.sequence->read(row.token, logits, tokenizer->vocab_size());
  } catch (const Error& error) {
    row.error = error.what();
  }
}

void Decoder::State::take(Turn& turn, Row& row, const StepReads* reads) const {
  if (turn.has_ended()) return;
  if (!row.error.empty()) return turn.fail(row.error, /*is_fault=*/false);
  DecodedToken nothing;
  DecodedToken& to = row.gives ? turn.next() : nothing;
  turn.sequence->take(std::move(row.read), ends, to);
  if (reads != nullptr && to.token && turn.sequence->slots() > 0) {
    to.slots = reads->greatest(row.row, turn.sequence->slots());
  }
}

// Reads and takes row by row, as long as what comes is what the next row was computed with.
void Decoder::State::take_drafted(Place& place, std::span<const float> logits,
                                  const StepReads* reads) const {
  Turn& turn = *place.turn;
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  for (std::size_t j = 0; j < place.rows.size() && !turn.has_ended(); ++j) {
    read(turn, place.rows[j], logits.subspan(j * vocab, vocab));
    take(turn, place.rows[j], reads);
    if (turn.has_ended() || j == turn.draft.size()) break;
    if (turn.made.back().token != turn.draft[j]) break;
    ++turn.accepted;
  }
  turn.sequence->cache().cut(place.rows.front().token + 1 + turn.accepted);
  turn.sequence->learn_of_draft(static_cast<std::int64_t>(turn.draft.size()), turn.accepted);
}

// After a step: what the tokens read, and pages that are full.
void Decoder::State::note(std::span<Turn> turns, std::span<const std::int64_t> lengths,
                          const StepReads* reads) {
  std::int64_t row = 0;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    const bool has_failed = turn.has_ended() && turn.made.back().finish == FinishReason::kError;
    if (!has_failed) {
      Sequence& sequence = *turn.sequence;
      sequence.keep_pages(*prefixes, sequence.cache().leaves_out_memory() ? nullptr : reads, row,
                          lengths[i]);
    }
    row += turn.rows();
  }
}

}  // namespace memlayers

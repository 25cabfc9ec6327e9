// SPDX-License-Identifier: Apache-2.0
// What a decoder holds, and how it makes a step.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "generate/prefix_cache.h"
#include "generate/sequence.h"
#include "generate/step_reads.h"
#include "memlayers/decoder.h"

namespace memlayers {

struct Decoder::State {
  // The next tokens of a sequence, and what came of them.
  struct Turn {
    generate::Sequence* sequence;
    std::int64_t count;                    // of those that are known
    std::vector<std::int32_t> draft = {};  // behind them
    std::int64_t accepted = 0;             // of the draft
    std::vector<DecodedToken> made = {};

    std::int64_t rows() const { return count + static_cast<std::int64_t>(draft.size()); }
    bool has_ended() const { return !made.empty() && made.back().finish; }
    DecodedToken& next() {
      made.push_back({.sequence = sequence->id()});
      return made.back();
    }
    void fail(const std::string& error, bool is_fault) {
      made = {{.sequence = sequence->id(),
               .finish = FinishReason::kError,
               .error = error,
               .is_fault = is_fault}};
    }
  };
  // One row of what a step computed, and what is read of it.
  struct Row {
    std::int64_t token, row;  // number in the sequence, and among all
    bool gives;               // a token of the answer, or its end
    generate::Sequence::Read read = {};
    std::string error = {};
  };
  // Rows of one sequence: one of a prompt or the last, or that and its drafts.
  struct Place {
    Turn* turn;
    std::vector<Row> rows;
  };

  Llama model;
  std::shared_ptr<const Tokenizer> tokenizer;
  DecoderOptions options;
  std::set<std::int32_t> ends;
  std::shared_ptr<CacheBudget> budget;
  std::int64_t next_id = 0;
  std::vector<std::unique_ptr<generate::Sequence>> sequences;  // in the order of joining
  std::unique_ptr<generate::PrefixCache> prefixes = {};        // null: none is kept
  std::int64_t drafted = 0, accepted = 0;

  auto find(std::int64_t id) {
    return std::ranges::find_if(sequences, [&](const auto& s) { return s->id() == id; });
  }
  void make_room(std::int64_t bytes);
  std::vector<Turn> next_turns() const;
  void add_drafts(std::vector<Turn>& turns) const;
  void run(std::span<Turn> turns);
  std::vector<Place> places_of(std::span<Turn> turns) const;
  void read(std::span<Turn> turns, const at::Tensor& hidden, const generate::StepReads* reads);
  void read(std::span<Place> places, const at::Tensor& hidden, const generate::StepReads* reads);
  void read(const Turn& turn, Row& row, std::span<const float> logits) const;
  void take(Turn& turn, Row& row, const generate::StepReads* reads) const;
  void take_drafted(Place& place, std::span<const float> logits,
                    const generate::StepReads* reads) const;
  void note(std::span<Turn> turns, std::span<const std::int64_t> lengths,
            const generate::StepReads* reads);
};

}  // namespace memlayers

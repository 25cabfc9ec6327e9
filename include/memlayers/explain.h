// SPDX-License-Identifier: Apache-2.0
// Which slots of its memory a model's answer rests on (docs/editing.md, "Where an answer comes
// from").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/confidence.h"
#include "memlayers/evaluate.h"

namespace memlayers {

// One memory layer's head reading one slot where the answer's tokens are predicted.
struct SlotRead {
  std::int64_t layer = 0, head = 0;
  double weight = 0;                  // softmax weights, summed over the answer's tokens
  std::vector<double> by_token = {};  // the same for each of them
};

struct ExplainedSlot {
  std::int64_t slot = 0;
  // Of the answer's log-probability, in nats, when this row reads as zero, wherever it is read:
  // below 0 where the slot carries the answer.
  double change = 0;
  double weight = 0, length = 0;           // of all reads; of the row, Euclidean
  std::optional<std::string> patch = {};   // that wrote the row; none: the base
  std::vector<std::int64_t> prompts = {};  // of ExplainOptions::prompts, those that used it
  std::vector<SlotRead> reads = {};        // by layer and head
};

struct Explanation {
  std::string answer = {};
  bool is_own = false;                    // the model's greedy answer, not one that was given
  std::vector<std::string> tokens = {};   // of the answer, as text; the end of text is one, ""
  double log_probability = 0;             // of all of them, nats
  std::int64_t slots_read = 0;            // different ones, for the answer's tokens
  std::vector<ExplainedSlot> slots = {};  // the largest change first, up or down
  // That a patch taught what the prompt asks for; absent: none says what it teaches.
  std::optional<MemoryConfidence> confidence = {};
};

struct ExplainOptions {
  std::int64_t top = 10;                  // slots that are left out, one after the other
  std::int64_t max_tokens = 32;           // of the model's own answer
  std::vector<std::string> prompts = {};  // earlier ones, whose last position is looked at
  std::optional<Snapshot> rows = {};      // of the pool's store; absent: how it is now

  void validate() const;  // throws Error naming the first wrong field
};

// Explains an answer to `prompt`, the model's own where none is given. Slots are ranked by weight
// times length of the row; the first `top` are left out, each in a forward pass of its own (several
// a batch), which gives their change exactly. Rows of any type, in memory or in a store, all of one
// version of it.
//
// Throws Error for a model without memory layers or whose pool a memory group shares, and for a
// prompt and answer that do not fit the context.
Explanation explain(Generator& generator, const std::string& prompt,
                    const std::optional<std::string>& answer = {},
                    const ExplainOptions& options = {});

// JSONL with "prompt"; what else a line holds is not looked at. Throws Error naming file and line.
std::vector<std::string> read_prompts(const std::string& path);

// A picture: the change of each slot as a bar, and how much each answer token read it, a cell each.
std::string explanation_svg(const Explanation& explanation);

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
// What learning makes of its input: every phrasing of every fact as tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "memlayers/edit.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// Prompts and paraphrases with their answers, in the order of the facts.
std::vector<Fact> learned_phrasings(const std::vector<NewFact>& facts);

// Every document of these files (text, or facts as JSONL) as tokens to read and predict; one that
// is longer than the context in pieces, those without a loss left out. So is what has one of the
// prompts of `without`: of a fact that is corrected there may be the old answer.
std::vector<train::FactRow> read_rows(Generator& generator, const std::vector<std::string>& paths,
                                      const std::vector<NewFact>& without = {});

// Throws Error unless the model has a pool whose rows can be trained, and every phrasing fits its
// context.
void check_can_learn(Generator& generator, const std::vector<NewFact>& facts);

// [slots] int64: how often each slot is read for these tokens. A sequence longer than the context
// is read in pieces.
at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences);

// Gradients for these parameters alone while it lives; then all is as before.
class OnlyTrained {
 public:
  OnlyTrained(Llama& model, const std::vector<at::Tensor>& trained);
  ~OnlyTrained();
  OnlyTrained(const OnlyTrained&) = delete;
  OnlyTrained& operator=(const OnlyTrained&) = delete;

 private:
  std::vector<std::pair<at::Tensor, bool>> before_;
};

}  // namespace memlayers::edit

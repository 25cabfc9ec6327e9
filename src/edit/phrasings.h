// SPDX-License-Identifier: Apache-2.0
// What learning makes of its input: every phrasing of every fact as tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "memlayers/edit.h"

namespace memlayers::edit {

// Prompts and paraphrases with their answers, in the order of the facts.
std::vector<Fact> learned_phrasings(const std::vector<NewFact>& facts);

// Throws Error unless the model has a pool whose rows can be trained, and every phrasing fits its
// context.
void check_can_learn(Generator& generator, const std::vector<NewFact>& facts);

// [slots] int64: how often each slot is read for these tokens. A sequence longer than the context
// is read in pieces.
at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences);

// Gradients for the pool's rows alone while it lives; then all is as before.
class OnlyRowsTrain {
 public:
  // `rows`: false keeps them from having one too.
  explicit OnlyRowsTrain(Llama& model, bool rows = true);
  ~OnlyRowsTrain();
  OnlyRowsTrain(const OnlyRowsTrain&) = delete;
  OnlyRowsTrain& operator=(const OnlyRowsTrain&) = delete;

 private:
  std::vector<std::pair<at::Tensor, bool>> before_;
};

}  // namespace memlayers::edit

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "memlayers/generator.h"
#include "text/shuffle.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// How much memories say where they were asked nothing: the mean, over tokens of other text and
// memory layers, of |what the memory gives|^2 / |what the feed-forward block beside it gives|^2.
// What the blocks take and give along the text is computed once, of the model as it is then: no
// layer between or above is needed for a step.
class OutputPenalty {
 public:
  OutputPenalty(Generator& generator, const std::vector<train::FactRow>& text, std::uint64_t seed);

  // Along some of the tokens, drawn anew each time; with gradient.
  at::Tensor draw();
  std::int64_t tokens() const { return count_; }

 private:
  struct Layer {
    MemoryLayer memory;
    at::Tensor in, squares;  // [tokens, dim]; [tokens] float32
  };
  std::vector<Layer> layers_;
  at::Tensor suffixes_;  // of the tokens, where the memory asks for them
  std::int64_t count_ = 0;
  text::SplitMix64 random_;
};

}  // namespace memlayers::edit

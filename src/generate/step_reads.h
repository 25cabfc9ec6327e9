// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <vector>

#include "memlayers/generate_options.h"
#include "memlayers/llama.h"

namespace memlayers::generate {

// What the memory layers of a model read in one step, by row: as nn::LookupHook shows it. Rows that
// leave memory out come last in a step, and read nothing.
class StepReads {
 public:
  explicit StepReads(const Llama& model);
  void add(const MemoryLayerImpl& layer, const at::Tensor& slots, const at::Tensor& weights);

  // Appends the slots that a row read, in all layers.
  void add_slots(std::int64_t row, std::vector<std::int64_t>& to) const;
  // The reads of a row of greatest weight, at most `most`, the greatest first.
  std::vector<ReadSlot> greatest(std::int64_t row, std::int64_t most) const;

 private:
  struct Part {  // rows [begin, begin + slots.size(0)) of one layer
    std::int64_t layer, begin;
    at::Tensor slots, weights;  // [T, H, k]
  };
  template <class F>
  void for_each_part_of(std::int64_t row, const F& f) const;

  struct Layer {
    std::int64_t number, rows = 0;  // rows: shown so far
  };
  std::map<const MemoryLayerImpl*, Layer> layers_;
  std::vector<Part> parts_;
};

}  // namespace memlayers::generate

// SPDX-License-Identifier: Apache-2.0
#include "generate/step_reads.h"

#include <algorithm>
#include <tuple>

namespace memlayers::generate {

StepReads::StepReads(const Llama& model) {
  for (const auto& [number, layer] : model->memory_layers()) layers_[layer.get()] = {number};
}

void StepReads::add(const MemoryLayerImpl& layer, const at::Tensor& slots,
                    const at::Tensor& weights) {
  Layer& of = layers_.at(&layer);
  parts_.push_back({of.number, of.rows, slots.contiguous(), weights.contiguous()});
  of.rows += slots.size(0);
}

// f(part, number of the row's first read in it)
template <class F>
void StepReads::for_each_part_of(std::int64_t row, const F& f) const {
  for (const Part& part : parts_) {
    if (row < part.begin || row >= part.begin + part.slots.size(0)) continue;
    f(part, (row - part.begin) * part.slots.size(1) * part.slots.size(2));
  }
}

void StepReads::add_slots(std::int64_t row, std::vector<std::int64_t>& to) const {
  for_each_part_of(row, [&](const Part& part, std::int64_t first) {
    const auto* slots = part.slots.const_data_ptr<std::int64_t>() + first;
    to.insert(to.end(), slots, slots + part.slots.size(1) * part.slots.size(2));
  });
}

std::vector<ReadSlot> StepReads::greatest(std::int64_t row, std::int64_t most) const {
  std::vector<ReadSlot> all;
  for_each_part_of(row, [&](const Part& part, std::int64_t first) {
    const auto* slots = part.slots.const_data_ptr<std::int64_t>() + first;
    const auto* weights = part.weights.const_data_ptr<float>() + first;
    const std::int64_t heads = part.slots.size(1), knn = part.slots.size(2);
    for (std::int64_t i = 0; i < heads * knn; ++i) {
      all.push_back({part.layer, i / knn, slots[i], weights[i]});
    }
  });
  std::ranges::sort(all, [](const ReadSlot& a, const ReadSlot& b) {
    return std::tuple(-a.weight, a.layer, a.head, a.slot) <
           std::tuple(-b.weight, b.layer, b.head, b.slot);
  });
  if (static_cast<std::int64_t>(all.size()) > most) all.resize(static_cast<std::size_t>(most));
  return all;
}

}  // namespace memlayers::generate

// SPDX-License-Identifier: Apache-2.0
#include "edit/kept_states.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace memlayers::edit {

KeptStates::KeptStates(Compute compute, std::int64_t most_bytes)
    : compute_(std::move(compute)), most_bytes_(most_bytes) {}

// In slabs of their own: thousands of small tensors that stay would lie between those of each step,
// and leave the heap in pieces that no later step's fit into.
at::Tensor KeptStates::keep(const at::Tensor& own) {
  constexpr std::int64_t kSlabBytes = std::int64_t{40} << 20;  // the allocator maps as much at once
  const std::int64_t length = own.size(0);
  if (!slab_.defined() || used_ + length > slab_.size(0)) {
    const std::int64_t row = own.size(1) * static_cast<std::int64_t>(own.element_size());
    slab_ = torch::empty({std::max(length, kSlabBytes / row), own.size(1)}, own.options());
    used_ = 0;
  }
  at::Tensor kept = slab_.narrow(0, used_, length);
  kept.copy_(own);
  used_ += length;
  return kept;
}

at::Tensor KeptStates::of(const train::Batch& batch) {
  const torch::NoGradGuard no_gradient;
  std::vector<at::Tensor> states(batch.rows.size());  // of each row all [T, dim]
  std::vector<const train::FactRow*> missing;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < batch.rows.size(); ++i) {
    if (const auto found = kept_.find(batch.rows[i]); found != kept_.end()) {
      states[i] = found->second;
    } else {
      missing.push_back(batch.rows[i]);
      places.push_back(i);
    }
  }
  if (!missing.empty()) {
    const train::Batch absent = train::batch_of(missing, batch.packed.prefix > 0);
    const at::Tensor made = compute_(absent).squeeze(0);
    const at::Tensor prefix = made.narrow(0, 0, absent.packed.prefix);
    std::int64_t begin = absent.packed.prefix;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      const std::int64_t length = absent.packed.lengths[i];
      const at::Tensor own = torch::cat({prefix, made.narrow(0, begin, length)});
      begin += length;
      states[places[i]] = own;
      const auto bytes = static_cast<std::int64_t>(own.nbytes());
      if (bytes_ + bytes > most_bytes_ || kept_.contains(missing[i])) continue;
      kept_.emplace(missing[i], keep(own));
      bytes_ += bytes;
    }
  }
  std::vector<at::Tensor> packed{states.front().narrow(0, 0, batch.packed.prefix)};
  for (const at::Tensor& own : states) packed.push_back(own.slice(0, batch.packed.prefix));
  return torch::cat(packed).unsqueeze(0);
}

}  // namespace memlayers::edit

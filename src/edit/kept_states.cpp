// SPDX-License-Identifier: Apache-2.0
#include "edit/kept_states.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <utility>
#include <vector>

namespace memlayers::edit {

KeptStates::KeptStates(Compute compute, std::int64_t most_bytes)
    : compute_(std::move(compute)), most_bytes_(most_bytes) {}

at::Tensor KeptStates::of(const Batch& batch) {
  const torch::NoGradGuard no_gradient;
  std::vector<at::Tensor> states(batch.rows.size());
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
    const at::Tensor made = compute_(batch_of(missing).input);
    for (std::size_t i = 0; i < missing.size(); ++i) {
      const auto length = static_cast<std::int64_t>(missing[i]->tokens.size()) - 1;
      at::Tensor own = made[static_cast<std::int64_t>(i)].narrow(0, 0, length);
      const auto bytes = static_cast<std::int64_t>(own.nbytes());
      if (bytes_ + bytes <= most_bytes_) {
        own = own.clone();
        if (kept_.emplace(missing[i], own).second) bytes_ += bytes;
      }
      states[places[i]] = own;
    }
  }
  const at::Tensor& any = states.front();
  at::Tensor all =
      torch::zeros({batch.input.size(0), batch.input.size(1), any.size(1)}, any.options());
  for (std::size_t i = 0; i < states.size(); ++i) {
    all[static_cast<std::int64_t>(i)].narrow(0, 0, states[i].size(0)).copy_(states[i]);
  }
  return all;
}

}  // namespace memlayers::edit

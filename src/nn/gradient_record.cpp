// SPDX-License-Identifier: Apache-2.0
#include "nn/gradient_record.h"

#include <algorithm>

namespace memlayers::nn {

void GradientRecord::add(std::int64_t call, FactoredGradient part) {
  // Saved variables come back with their graph, which must not live as long as the record.
  part.weights = part.weights.detach();
  part.rows = part.rows.detach();
  const std::lock_guard lock(mutex_);
  parts_.emplace_back(call, std::move(part));
}

void GradientRecord::add(std::int64_t call, std::vector<FactoredGradient> by_process) {
  constexpr std::int64_t kMostCalls = std::int64_t{1} << 40;
  for (FactoredGradient& part : by_process) {
    if (part.slots.defined()) add(call, std::move(part));
    call += kMostCalls;
  }
}

std::vector<FactoredGradient> GradientRecord::all() const {
  const std::lock_guard lock(mutex_);
  auto parts = parts_;
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<FactoredGradient> gradient;
  gradient.reserve(parts.size());
  for (auto& [call, part] : parts) gradient.push_back(std::move(part));
  return gradient;
}

void GradientRecord::clear() {
  const std::lock_guard lock(mutex_);
  parts_.clear();
}

}  // namespace memlayers::nn

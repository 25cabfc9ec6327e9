// SPDX-License-Identifier: Apache-2.0
// The factored gradient of a pool, as backward finds it.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "memlayers/row_updates.h"

namespace memlayers::nn {

// Shared with the graphs of forward calls, which may outlive the pool. From any thread: autograd
// may run backward in its own.
class GradientRecord {
 public:
  std::int64_t next_call() { return calls_++; }
  void add(std::int64_t call, FactoredGradient part);
  // What a process of a memory group has of one call: parts by rank, each undefined or of the
  // tokens of that process. They count behind those of all calls of a lower rank.
  void add(std::int64_t call, std::vector<FactoredGradient> by_process);
  // In the order of the forward calls.
  std::vector<FactoredGradient> all() const;
  void clear();

 private:
  std::atomic<std::int64_t> calls_{0};
  mutable std::mutex mutex_;
  std::vector<std::pair<std::int64_t, FactoredGradient>> parts_;  // guarded by mutex_
};

}  // namespace memlayers::nn

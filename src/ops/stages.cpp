// SPDX-License-Identifier: Apache-2.0
#include "ops/stages.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "ops/parallel.h"

namespace memlayers::ops {

int Stages::add(std::int64_t begin, std::int64_t end, std::int64_t item_work,
                std::initializer_list<int> after, Work work) {
  Stage& stage = stages_.emplace_back();
  stage.work = std::move(work);
  stage.after = after;
  // Each takes a thread's share of half of what is left: few ranges, and the last ones short.
  const std::int64_t threads = at::get_num_threads(), least = items_worth_a_thread(item_work);
  std::int64_t count = 0;
  for (; begin < end; ++count) {
    const std::int64_t share =
        threads == 1 ? end - begin : (end - begin + 2 * threads - 1) / (2 * threads);
    const std::int64_t size = std::min(end - begin, std::max(least, share));
    ranges_.push_back({&stage, begin, begin + size});
    begin += size;
  }
  stage.left = count;
  most_ranges_ = std::max(most_ranges_, count);
  return static_cast<int>(stages_.size()) - 1;
}

void Stages::run() {
  const std::int64_t threads = std::min<std::int64_t>(at::get_num_threads(), most_ranges_);
  at::parallel_for(0, threads, 1, [&](std::int64_t, std::int64_t) { take_ranges(); });
}

// Nobody waits for ever, however many threads there are: the first range that is not done waits for
// none, and who took it is at work on it.
void Stages::take_ranges() {
  for (std::size_t i = next_++; i < ranges_.size(); i = next_++) {
    const Range& range = ranges_[i];
    for (const int stage : range.stage->after) {
      if (!wait_for(stages_[stage])) return;
    }
    try {
      range.stage->work(range.begin, range.end);
    } catch (...) {
      has_failed_ = true;
      throw;
    }
    range.stage->left.fetch_sub(1, std::memory_order_release);
  }
}

bool Stages::wait_for(const Stage& stage) const {
  constexpr int kSpins = 256;  // a microsecond
  for (int spins = 0; stage.left.load(std::memory_order_acquire) != 0; ++spins) {
    if (has_failed_) return false;
    if (spins >= kSpins) std::this_thread::yield();
  }
  return true;
}

}  // namespace memlayers::ops

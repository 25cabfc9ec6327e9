// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <initializer_list>
#include <vector>

namespace memlayers::ops {

// One parallel part for work in stages that is too short for a parallel part each: threads take
// ranges in the order in which stages were added, large ones first, and wait only where a stage
// that theirs comes after is still at work. So nobody waits for the slowest thread at the end of
// each stage while there is anything to do. How a stage is split must not change what it computes.
class Stages {
 public:
  using Work = std::function<void(std::int64_t begin, std::int64_t end)>;

  // Adds `work` over [begin, end), where one item costs `item_work` bytes or operations. It begins
  // when the stages `after`, added before, are done. Returns its number.
  int add(std::int64_t begin, std::int64_t end, std::int64_t item_work,
          std::initializer_list<int> after, Work work);

  // Returns when all stages are done. Throws what a stage threw; those after it are left out.
  // Once.
  void run();

 private:
  struct Stage {
    Work work;
    std::vector<int> after;
    std::atomic<std::int64_t> left;  // ranges
  };
  struct Range {
    Stage* stage;
    std::int64_t begin, end;
  };

  void take_ranges();
  bool wait_for(const Stage& stage) const;  // false: given up

  std::deque<Stage> stages_;
  std::vector<Range> ranges_;
  std::int64_t most_ranges_ = 1;  // of one stage
  std::atomic<std::size_t> next_ = 0;
  std::atomic<bool> has_failed_ = false;
};

}  // namespace memlayers::ops

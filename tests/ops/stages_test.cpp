// SPDX-License-Identifier: Apache-2.0
#include "ops/stages.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace memlayers::ops {
namespace {

constexpr std::int64_t kDear = 1 << 20;  // worth a thread for itself

class WithThreads {
 public:
  explicit WithThreads(int threads) : before_(at::get_num_threads()) {
    at::set_num_threads(threads);
  }
  ~WithThreads() { at::set_num_threads(before_); }
  WithThreads(const WithThreads&) = delete;
  WithThreads& operator=(const WithThreads&) = delete;

 private:
  int before_;
};

// first and second, of which second and last read what those before have written.
void run_three_stages() {
  constexpr std::int64_t kItems = 300;
  std::vector<int> first(kItems), second(kItems), last(kItems), times(kItems);
  std::vector<std::atomic<int>> aside(kItems);
  Stages stages;
  const int a = stages.add(0, kItems, kDear, {}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) first[i] = static_cast<int>(i);
  });
  stages.add(0, 100, kDear, {}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++aside[i];
  });
  const int b = stages.add(0, kItems, kDear, {a}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) second[i] = first[kItems - 1 - i] + 1;
  });
  stages.add(100, kItems, kDear, {}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++aside[i];
  });
  stages.add(0, 0, kDear, {}, [](std::int64_t, std::int64_t) { FAIL() << "nothing to do"; });
  stages.add(0, kItems, kDear, {a, b}, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      last[i] = first[i] + second[(i + 7) % kItems];
      ++times[i];
    }
  });
  stages.run();
  for (std::int64_t i = 0; i < kItems; ++i) {
    ASSERT_EQ(times[i], 1) << i;
    ASSERT_EQ(aside[i], 1) << i;
    ASSERT_EQ(last[i], i + (kItems - 1 - (i + 7) % kItems) + 1) << i;
  }
}

TEST(Stages, EachItemOnceAndAfterWhatItComesAfter) {
  for (const int threads : {1, 2, 3, 7}) {
    const WithThreads with(threads);
    for (int i = 0; i < 200; ++i) run_three_stages();
  }
}

TEST(Stages, RunInsideAParallelPart) {
  const WithThreads with(3);
  at::parallel_for(0, 6, 1, [](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) run_three_stages();
  });
}

TEST(Stages, ThrowWhatAStageThrewAndLeaveOutWhatComesAfterIt) {
  for (const int threads : {1, 3}) {
    const WithThreads with(threads);
    std::atomic<int> later = 0;
    Stages stages;
    const int bad = stages.add(0, 50, kDear, {}, [](std::int64_t begin, std::int64_t end) {
      if (begin <= 20 && 20 < end) throw std::runtime_error("item 20");
    });
    stages.add(0, 50, kDear, {bad}, [&](std::int64_t, std::int64_t) { ++later; });
    try {
      stages.run();
      FAIL() << "expected an exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "item 20");
    }
    EXPECT_EQ(later, 0);
  }
}

}  // namespace
}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace memlayers::ops {

// How many items that cost `item_work` bytes or operations are worth a thread.
inline std::int64_t items_worth_a_thread(std::int64_t item_work) {
  constexpr std::int64_t kMinWork = 1 << 15;  // below this, waking a thread costs more
  return std::max<std::int64_t>(1, kMinWork / std::max<std::int64_t>(1, item_work));
}

// f(begin, end) over parts of [0, count), each worth a thread. How it is split must not change what
// f computes.
template <class F>
void parallel_ranges(std::int64_t count, std::int64_t item_work, const F& f) {
  at::parallel_for(0, count, items_worth_a_thread(item_work), f);
}

}  // namespace memlayers::ops

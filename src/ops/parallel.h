// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

namespace memlayers::ops {

// f(begin, end) over parts of [0, count), each worth at least `min_work` bytes or operations when
// one item costs `item_work`. How it is split must not change what f computes.
template <class F>
void parallel_ranges(std::int64_t count, std::int64_t item_work, const F& f) {
  constexpr std::int64_t kMinWork = 1 << 15;  // below this, waking a thread costs more
  const std::int64_t grain =
      std::max<std::int64_t>(1, kMinWork / std::max<std::int64_t>(1, item_work));
  at::parallel_for(0, count, grain, f);
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "memlayers/config.h"

namespace memlayers::train {

// The learning rate of step `step` (counted from 0) of `total`, relative to its peak: rises
// linearly over `warmup` steps (the first one is 1 / warmup), is 1 at step `warmup`, and ends at
// `min_ratio` in the last step unless it is constant.
inline double schedule_factor(Schedule schedule, std::int64_t step, std::int64_t total,
                              std::int64_t warmup, double min_ratio) {
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule == Schedule::kConstant) return 1;
  const double length = static_cast<double>(std::max<std::int64_t>(1, total - 1 - warmup));
  const double progress = std::min(1.0, static_cast<double>(step - warmup) / length);
  const double shape = schedule == Schedule::kCosine
                           ? 0.5 * (1 + std::cos(std::numbers::pi * progress))
                           : 1 - progress;
  return min_ratio + (1 - min_ratio) * shape;
}

}  // namespace memlayers::train

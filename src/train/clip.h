// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

namespace memlayers::train {

// What a gradient of norm `norm` is multiplied by to have norm `clip` at most.
inline double clip_factor(double norm, std::optional<double> clip) {
  return clip && norm > *clip ? *clip / norm : 1.0;
}

}  // namespace memlayers::train

// SPDX-License-Identifier: Apache-2.0
// Intervals of what is measured.
#pragma once

#include <optional>
#include <vector>

#include "memlayers/evaluate.h"

namespace memlayers::train {

// The share `hits` of n > 0, with Wilson's interval.
Estimate share(double hits, double n);

// The ratio of the sums of y and x, with the interval of the delta method: of one pair that is the
// ratio itself. Absent where the sum of x is 0.
std::optional<Estimate> ratio(const std::vector<double>& y, const std::vector<double>& x);

}  // namespace memlayers::train

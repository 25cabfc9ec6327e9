// SPDX-License-Identifier: Apache-2.0
#include "train/estimate.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace memlayers::train {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the normal distribution

}  // namespace

Estimate share(double hits, double n) {
  const double p = hits / n, z2 = kZ * kZ;
  const double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kZ / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {p, std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

std::optional<Estimate> ratio(const std::vector<double>& y, const std::vector<double>& x) {
  const auto n = static_cast<double>(y.size());
  const double sum_x = std::accumulate(x.begin(), x.end(), 0.0);
  if (!(sum_x > 0)) return std::nullopt;
  const double value = std::accumulate(y.begin(), y.end(), 0.0) / sum_x;
  double squares = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double residual = y[i] - value * x[i];
    squares += residual * residual;
  }
  const double error = n > 1 ? std::sqrt(squares / (n - 1) / n) / (sum_x / n) : 0;
  return Estimate{value, value - kZ * error, value + kZ * error};
}

}  // namespace memlayers::train

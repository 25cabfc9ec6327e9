// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <numbers>

namespace memlayers::ops {

// PEER's, exact (by erf).
inline float gelu(float z) {
  return 0.5F * z * (1 + std::erf(z * std::numbers::sqrt2_v<float> / 2));
}

inline float gelu_derivative(float z) {
  const float cdf = 0.5F * (1 + std::erf(z * std::numbers::sqrt2_v<float> / 2));
  const float density =
      std::exp(-0.5F * z * z) * std::numbers::inv_sqrtpi_v<float> / std::numbers::sqrt2_v<float>;
  return cdf + z * density;
}

}  // namespace memlayers::ops

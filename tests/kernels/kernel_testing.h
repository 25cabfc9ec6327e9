// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace memlayers::kernels {

// Every test of a kernel runs once for each instruction set of this CPU.
class EachIsa : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernel() const { return *GetParam(); }
};

inline std::string isa_name(const ::testing::TestParamInfo<const Kernels*>& info) {
  return info.param->isa;
}

inline std::vector<float> normal(std::int64_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = distribution(generator);
  return values;
}

inline float to_float(float x) { return x; }
inline float to_float(BFloat16 x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

template <class Row>
Row from_float(float x) {
  if constexpr (std::is_same_v<Row, float>) {
    return x;
  } else {
    return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)};
  }
}

template <class Row>
std::vector<Row> rows(std::int64_t n, unsigned seed) {
  std::vector<Row> values;
  for (float x : normal(n, seed)) values.push_back(from_float<Row>(x));
  return values;
}

// Widths around the vectors of all instruction sets, and of longer rows.
inline const std::vector<std::int64_t> kWidths = {0,  1,  3,  4,  5,  7,   8,   9,   15,  16,  17,
                                                  31, 33, 63, 64, 65, 100, 128, 130, 256, 257, 600};

}  // namespace memlayers::kernels

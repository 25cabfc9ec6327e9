// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace memlayers::kernels {
namespace {

#include "kernels/vec_bits.inl"

#include "kernels/select.inl"

using Ranks = std::vector<std::uint64_t>;

// What every selection promises: the k greatest come first, descending, and none is lost.
template <class Select>
void expect_first(const Ranks& numbers, std::int64_t k, Select select) {
  Ranks wanted = numbers, got = numbers;
  std::sort(wanted.begin(), wanted.end(), std::greater<>());
  select(got.data(), static_cast<std::int64_t>(got.size()), k);
  ASSERT_TRUE(std::equal(got.begin(), got.begin() + k, wanted.begin()))
      << "n " << numbers.size() << " k " << k;
  std::sort(got.begin(), got.end(), std::greater<>());
  ASSERT_EQ(got, wanted);
}

TEST(Select, SortsTheFirstOfAnyOrderHoweverManySplitsAreLeft) {
  for (std::size_t n : {1U, 2U, 3U, 24U, 25U, 100U, 1000U}) {
    Ranks shuffled(n);
    std::iota(shuffled.begin(), shuffled.end(), 5U);
    Ranks up = shuffled, organ_pipe = shuffled;
    const auto half = static_cast<std::ptrdiff_t>(n / 2);
    std::reverse(organ_pipe.begin() + half, organ_pipe.end());
    std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937_64(1));
    const Ranks down(up.rbegin(), up.rend());
    for (const Ranks& numbers : {shuffled, up, down, organ_pipe}) {
      for (std::size_t k : {std::size_t{1}, std::size_t{2}, std::size_t{30}, n / 2, n - 1, n}) {
        if (k < 1 || k > n) continue;
        const auto wanted = static_cast<std::int64_t>(k);
        for (int splits : {0, 1, 3}) {
          expect_first(numbers, wanted, [&](std::uint64_t* a, std::int64_t count, std::int64_t m) {
            sort_first(a, count, m, splits);
          });
        }
        expect_first(numbers, wanted, [](std::uint64_t* a, std::int64_t count, std::int64_t m) {
          sort_first(a, count, m);
        });
      }
    }
  }
}

TEST(Select, RanksOrderScoresAndOfEqualOnesTheEarlier) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> ascending{-kInfinity, -std::numeric_limits<float>::max(),
                                     -1.0F,      -1e-45F,
                                     0.0F,       1e-45F,
                                     1.0F,       std::numeric_limits<float>::max(),
                                     kInfinity,  std::numeric_limits<float>::quiet_NaN()};
  for (std::size_t i = 0; i + 1 < ascending.size(); ++i) {
    EXPECT_LT(ranked(ascending[i], 0), ranked(ascending[i + 1], 9)) << ascending[i];
    EXPECT_GT(ranked(ascending[i], 7), ranked(ascending[i], 8)) << ascending[i];
    EXPECT_EQ(place_of(ranked(ascending[i], 4095)), 4095U);
  }
  EXPECT_EQ(ranked(-0.0F, 3), ranked(0.0F, 3));
  EXPECT_EQ(ranked(as_float(0xffc00001U), 3), ranked(as_float(0x7f800001U), 3));
}

}  // namespace
}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
#include "pool/random_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <numbers>
#include <thread>
#include <vector>

namespace memlayers::pool {
namespace {

std::vector<float> fill(std::int64_t width, std::int64_t first, std::int64_t last, double std,
                        std::uint64_t seed) {
  std::vector<float> rows(static_cast<std::size_t>((last - first) * width));
  fill_normal(reinterpret_cast<std::byte*>(rows.data()), RowType::kFloat32, width, first, last, std,
              seed);
  return rows;
}

TEST(FillNormal, IsPhiloxAndBoxMuller) {
  // Known answer of Random123 for philox4x32-10 with counter 0 and key 0.
  const std::uint32_t words[] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const std::vector<float> row = fill(4, 0, 1, 1, 0);
  for (std::size_t i = 0; i < 4; i += 2) {
    const double radius = std::sqrt(-2 * std::log((words[i] + 1.0) / 4294967296.0));
    const double angle = 2 * std::numbers::pi * words[i + 1] / 4294967296.0;
    EXPECT_FLOAT_EQ(row[i], static_cast<float>(radius * std::cos(angle)));
    EXPECT_FLOAT_EQ(row[i + 1], static_cast<float>(radius * std::sin(angle)));
  }
}

TEST(FillNormal, HasTheMomentsOfANormal) {
  const double std = 0.25;
  const std::vector<float> rows = fill(100, 0, 10'000, std, 7);
  double sum = 0, squares = 0, cubes = 0, fourths = 0, neighbours = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double z = rows[i] / std;
    sum += z;
    squares += z * z;
    cubes += z * z * z;
    fourths += z * z * z * z;
    if (i > 0) neighbours += z * rows[i - 1] / std;
  }
  const auto n = static_cast<double>(rows.size());
  const double sigma = 1 / std::sqrt(n);  // of a mean of n numbers of deviation 1
  EXPECT_NEAR(sum / n, 0, 5 * sigma);
  EXPECT_NEAR(squares / n, 1, 5 * sigma * std::sqrt(2));
  EXPECT_NEAR(cubes / n, 0, 5 * sigma * std::sqrt(15));
  EXPECT_NEAR(fourths / n, 3, 5 * sigma * std::sqrt(96));
  EXPECT_NEAR(neighbours / n, 0, 5 * sigma);
}

// Kolmogorov and Smirnov: the largest distance of the distribution from that of a normal, times
// sqrt(n), is above 1.95 once in a thousand seeds.
TEST(FillNormal, IsDistributedAsANormal) {
  std::vector<float> z = fill(1000, 0, 1000, 1, 11);
  std::sort(z.begin(), z.end());
  const auto n = static_cast<double>(z.size());
  double distance = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double wanted = std::erfc(-z[i] / std::numbers::sqrt2) / 2;
    const auto below = static_cast<double>(i);
    distance = std::max({distance, wanted - below / n, (below + 1) / n - wanted});
  }
  EXPECT_LT(distance * std::sqrt(n), 1.95);
}

TEST(FillNormal, HasTheTailsOfANormalBeyondFiveDeviations) {
  constexpr double kBounds[] = {2, 3, 4, 4.5, 5, 5.3};
  std::array<double, std::size(kBounds)> beyond{};
  constexpr std::int64_t kRows = 64, kRowsAtOnce = 4, kWidth = 1 << 20;
  for (std::int64_t first = 0; first < kRows; first += kRowsAtOnce) {
    for (const float z : fill(kWidth, first, first + kRowsAtOnce, 1, 13)) {
      for (std::size_t i = 0; i < beyond.size() && std::abs(z) > kBounds[i]; ++i) ++beyond[i];
    }
  }
  for (std::size_t i = 0; i < beyond.size(); ++i) {
    const double wanted =
        static_cast<double>(kRows * kWidth) * std::erfc(kBounds[i] / std::numbers::sqrt2);
    ASSERT_GT(wanted, 5) << "enough to compare";
    EXPECT_NEAR(beyond[i], wanted, 4 * std::sqrt(wanted)) << kBounds[i];
  }
}

TEST(FillNormal, GivesARowTheSameBitsInAnyRangeAndThread) {
  for (const std::int64_t width : {1, 3, 4, 7, 64}) {
    const std::vector<float> whole = fill(width, 0, 100, 1, 3);
    std::vector<float> parts(whole.size());
    std::vector<std::jthread> threads;
    const std::int64_t cuts[] = {0, 1, 17, 50, 100};
    for (int part = 0; part < 4; ++part) {
      threads.emplace_back([&, part] {
        fill_normal(reinterpret_cast<std::byte*>(parts.data() + cuts[part] * width),
                    RowType::kFloat32, width, cuts[part], cuts[part + 1], 1, 3);
      });
    }
    threads.clear();
    EXPECT_EQ(std::memcmp(parts.data(), whole.data(), whole.size() * sizeof(float)), 0) << width;
  }
}

TEST(FillNormal, DoesNotDependOnTheWidthOfTheTable) {
  const std::vector<float> narrow = fill(6, 5, 6, 1, 3), wide = fill(9, 5, 6, 1, 3);
  EXPECT_EQ(std::vector<float>(wide.begin(), wide.begin() + 6), narrow);
}

TEST(FillNormal, DiffersBySeedAndByFarAwaySlot) {
  EXPECT_NE(fill(4, 0, 1, 1, 1), fill(4, 0, 1, 1, 2));
  EXPECT_NE(fill(4, 0, 1, 1, 1), fill(4, 0, 1, 1, (std::uint64_t{1} << 32) + 1));
  const std::int64_t far = std::int64_t{1} << 32;  // needs the counter's second word
  EXPECT_NE(fill(4, 0, 1, 1, 1), fill(4, far, far + 1, 1, 1));
}

TEST(FillNormal, RoundsToTheNearestBfloat16) {
  const std::vector<float> exact = fill(33, 0, 300, 1, 9);
  std::vector<std::uint16_t> rounded(exact.size());
  fill_normal(reinterpret_cast<std::byte*>(rounded.data()), RowType::kBFloat16, 33, 0, 300, 1, 9);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(rounded[i]) << 16);
    // Half a step of bfloat16's 8 bits.
    EXPECT_LE(std::abs(value - exact[i]), std::abs(exact[i]) * 0x1p-8F) << i;
  }
}

}  // namespace
}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

class Normal : public EachIsa {};

constexpr std::uint64_t kSeed = 0x123456789abcdef0U;

// Philox4x32-10 as its paper writes it.
std::array<std::uint32_t, 4> plain_philox(std::array<std::uint32_t, 4> counter, std::uint64_t key) {
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ULL * counter[0], b = 0xCD9E8D57ULL * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1,
               static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return counter;
}

// What stands at (slot, column), by the C library.
double plain_normal(std::int64_t slot, std::int64_t column) {
  const auto s = static_cast<std::uint64_t>(slot), c = static_cast<std::uint64_t>(column / 4);
  const auto words =
      plain_philox({static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32),
                    static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c >> 32)},
                   kSeed);
  const std::size_t pair = column % 4 < 2 ? 0 : 2;
  const double radius = std::sqrt(-2 * std::log((words[pair] + 1.0) * 0x1p-32));
  const double angle = 2 * std::numbers::pi * words[pair + 1] * 0x1p-32;
  return radius * (column % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

TEST_P(Normal, IsTheLibrarysLogarithmAndSine) {
  // Of the last float: half a step of rounding. Near a zero of the sine the library's angle,
  // rounded to double, is off by 1e-15.
  for (const std::int64_t slot : {std::int64_t{0}, std::int64_t{77}, std::int64_t{1} << 33}) {
    std::vector<float> row(20'000);
    kernel().f32.normal(row.data(), 20'000, slot, slot + 1, 0.3, kSeed, 0);
    for (std::int64_t c = 0; c < 20'000; ++c) {
      const double wanted = 0.3 * plain_normal(slot, c);
      ASSERT_NEAR(row[static_cast<std::size_t>(c)], wanted, std::abs(wanted) * 0x1.001p-24 + 1e-14)
          << "slot " << slot << ", column " << c;
    }
  }
}

TEST_P(Normal, HasTheSameBitsOnEveryInstructionSetAndKeepsToItsRows) {
  const Kernels& plain = *supported()[0];
  for (const std::int64_t width : kWidths) {
    const std::int64_t rows = 3;
    const auto size = static_cast<std::size_t>(rows * width);
    std::vector<float> floats(size + 1, 7), wanted_floats(size + 1, 7);
    kernel().f32.normal(floats.data(), width, 5, 5 + rows, 1.5, kSeed, 0);
    plain.f32.normal(wanted_floats.data(), width, 5, 5 + rows, 1.5, kSeed, 0);
    EXPECT_EQ(std::memcmp(floats.data(), wanted_floats.data(), floats.size() * 4), 0) << width;
    EXPECT_EQ(floats.back(), 7) << width;
    std::vector<BFloat16> halves(size + 1, BFloat16{7}), wanted_halves = halves;
    kernel().bf16.normal(halves.data(), width, 5, 5 + rows, 1.5, kSeed, 0);
    plain.bf16.normal(wanted_halves.data(), width, 5, 5 + rows, 1.5, kSeed, 0);
    EXPECT_EQ(std::memcmp(halves.data(), wanted_halves.data(), halves.size() * 2), 0) << width;
    EXPECT_EQ(halves.back().bits, 7) << width;
  }
}

TEST_P(Normal, ASliceOfTheColumnsHasTheBitsOfTheWholeRows) {
  constexpr std::int64_t kRowWidth = 100, kFirst = 36, kPart = 41;
  std::vector<float> whole(3 * kRowWidth), part(3 * kPart);
  kernel().f32.normal(whole.data(), kRowWidth, 7, 10, 1, kSeed, 0);
  kernel().f32.normal(part.data(), kPart, 7, 10, 1, kSeed, kFirst);
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t c = 0; c < kPart; ++c) {
      ASSERT_EQ(part[row * kPart + c], whole[row * kRowWidth + kFirst + c]) << row << ", " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Normal, ::testing::ValuesIn(supported()), isa_name);

}  // namespace
}  // namespace memlayers::kernels

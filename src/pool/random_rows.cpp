// SPDX-License-Identifier: Apache-2.0
#include "pool/random_rows.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

namespace memlayers::pool {
namespace {

using Block = std::array<std::uint32_t, 4>;

Block philox(Block counter, std::uint64_t key) {
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

// Two normal numbers from two words; the first uniform is in (0, 1], so that its logarithm exists.
std::array<double, 2> box_muller(std::uint32_t a, std::uint32_t b) {
  const double radius = std::sqrt(-2 * std::log((static_cast<double>(a) + 1) * 0x1p-32));
  const double angle = 2 * std::numbers::pi * static_cast<double>(b) * 0x1p-32;
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

std::uint16_t to_bfloat16(float x) {  // to nearest, ties to even; x is finite
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

void fill_normal(std::byte* rows, RowType type, std::int64_t width, std::int64_t first,
                 std::int64_t last, double std, std::uint64_t seed) {
  for (std::int64_t slot = first; slot < last; ++slot) {
    for (std::int64_t column = 0; column < width; column += 4) {
      const auto s = static_cast<std::uint64_t>(slot), c = static_cast<std::uint64_t>(column / 4);
      const Block words =
          philox({static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32),
                  static_cast<std::uint32_t>(c), static_cast<std::uint32_t>(c >> 32)},
                 seed);
      const auto low = box_muller(words[0], words[1]), high = box_muller(words[2], words[3]);
      const std::array<double, 4> normal{low[0], low[1], high[0], high[1]};
      for (std::int64_t i = 0; i < 4 && column + i < width; ++i) {
        const auto x = static_cast<float>(std * normal[static_cast<std::size_t>(i)]);
        const std::int64_t at = (slot - first) * width + column + i;
        if (type == RowType::kFloat32) {
          std::memcpy(rows + at * 4, &x, 4);
        } else {
          const std::uint16_t half = to_bfloat16(x);
          std::memcpy(rows + at * 2, &half, 2);
        }
      }
    }
  }
}

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
// A shuffle that is the same with every standard library: std::shuffle is not.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace memlayers::text {

// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, also small neighbouring ones.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  // Uniform over 0 .. bound - 1: the 2^64 mod bound lowest draws would be too many, so drawn again.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t surplus = (0 - bound) % bound;
    for (;;) {
      const std::uint64_t draw = next();
      if (draw >= surplus) return draw % bound;
    }
  }

 private:
  std::uint64_t state_;
};

template <typename T>
void shuffle(std::vector<T>& items, SplitMix64& random) {
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[static_cast<std::size_t>(random.below(i))]);
  }
}

}  // namespace memlayers::text

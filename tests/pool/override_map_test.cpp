// SPDX-License-Identifier: Apache-2.0
#include "pool/override_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace memlayers::pool {
namespace {

TEST(OverrideMap, FindsWhatAPlainMapFindsHoweverOftenItChanges) {
  constexpr std::int64_t kSlots = 50'000;
  std::mt19937_64 random(1);
  OverrideMap map(kSlots);
  std::map<std::int64_t, std::uint32_t> wanted;
  // Many more changes than are overridden at a time; then fewer and fewer, down to none.
  for (std::uint32_t round = 0; round < 40; ++round) {
    const bool grows = round < 20;
    std::map<std::int64_t, std::optional<RowPlace>> changes;
    for (int i = 0; i < 2000; ++i) {
      const auto slot = static_cast<std::int64_t>(random() % kSlots);
      const bool is_set = grows && random() % 3 != 0;
      changes[slot] = is_set ? std::optional(RowPlace{nullptr, round}) : std::nullopt;
      if (is_set) {
        wanted[slot] = round;
      } else {
        wanted.erase(slot);
      }
    }
    if (round == 39) {
      for (const auto& [slot, row] : wanted) changes[slot] = std::nullopt;
      wanted.clear();
    }
    const OverrideMap before = map;
    const std::int64_t size_before = before.size();
    map = before.with(std::vector<OverrideMap::Change>(changes.begin(), changes.end()));
    ASSERT_EQ(map.size(), static_cast<std::int64_t>(wanted.size()));
    ASSERT_EQ(before.size(), size_before);
    for (std::int64_t slot = 0; slot < kSlots; ++slot) {
      const RowPlace* place = map.find(slot);
      const auto known = wanted.find(slot);
      ASSERT_EQ(place != nullptr, known != wanted.end()) << "round " << round << ", slot " << slot;
      if (place != nullptr) {
        ASSERT_EQ(place->row, known->second) << slot;
      }
    }
  }
}

}  // namespace
}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pool/overlay.h"

namespace memlayers::pool {

// Where the row of an overridden slot lies. The overlay outlives the map: its owner sees to that.
struct RowPlace {
  const Overlay* overlay = nullptr;
  std::uint32_t row = 0;  // or Overlay::kErased
};

// slot -> place of its row, for the slots that are not as in the base. Immutable; a changed copy
// shares the pages that did not change. A page covers 1024 slots with a bit for each, and the
// places of those set, packed: a place takes 16 bytes. Pages lie all over the memory, and most
// slots asked for are of the base: a filter of one bit for each hash, small enough for the
// processor's cache, tells nearly all of those without them.
class OverrideMap {
 public:
  using Change = std::pair<std::int64_t, std::optional<RowPlace>>;  // none: as in the base

  OverrideMap() = default;
  explicit OverrideMap(std::int64_t slots)
      : pages_(static_cast<std::size_t>((slots + kSlots - 1) / kSlots)) {}

  // Null for a slot of the base. Requires a slot of the pool.
  const RowPlace* find(std::int64_t slot) const {
    const std::size_t hash = hash_of(slot);
    if ((filter_[hash / 64] >> (hash % 64) & 1) == 0) return nullptr;
    const Page* page = pages_[static_cast<std::size_t>(slot / kSlots)].get();
    if (page == nullptr) return nullptr;
    const auto bit = static_cast<std::size_t>(slot % kSlots);
    const std::uint64_t word = page->bits[bit / 64];
    if ((word >> (bit % 64) & 1) == 0) return nullptr;
    const std::uint64_t below = word & ((std::uint64_t{1} << (bit % 64)) - 1);
    return &page->places[page->rank[bit / 64] + static_cast<std::size_t>(std::popcount(below))];
  }
  // A copy with these changes, sorted by slot, each once.
  OverrideMap with(std::span<const Change> changes) const;
  OverrideMap with_slots(std::int64_t slots) const;  // a copy for a pool that has grown
  std::int64_t size() const { return size_; }        // overridden slots

 private:
  static constexpr std::int64_t kSlots = 1024;
  struct Page {
    std::array<std::uint64_t, kSlots / 64> bits{};
    std::array<std::uint16_t, kSlots / 64> rank{};  // bits set in the words before
    std::vector<RowPlace> places;
  };
  std::size_t hash_of(std::int64_t slot) const {
    return static_cast<std::uint64_t>(slot) * 0x9e3779b97f4a7c15 >> filter_shift_;
  }
  void put_into_filter(std::span<const Change> changes);
  std::vector<std::shared_ptr<const Page>> pages_;  // null: nothing overridden
  std::int64_t size_ = 0;
  // 2^(64 - filter_shift_) bits. Set are those of all overridden slots, and some of slots that were
  // overridden before: it is made anew when those become many.
  std::vector<std::uint64_t> filter_ = {0};
  int filter_shift_ = 58;
  std::int64_t filtered_ = 0;  // how many slots were put into it
};

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#include "pool/override_map.h"

#include <algorithm>

namespace memlayers::pool {
namespace {

// Bits of the filter, as a power of two: 16 or more a slot, so that at most 6 % of the base's slots
// pass; at most 256 KiB, as each edit copies it.
int filter_bits(std::int64_t slots) {
  return std::clamp(static_cast<int>(std::bit_width(static_cast<std::uint64_t>(slots) * 16)), 6,
                    21);
}

}  // namespace

OverrideMap OverrideMap::with(std::span<const Change> changes) const {
  OverrideMap map = *this;
  const std::span<const Change> added = changes;
  std::array<std::optional<RowPlace>, kSlots> slots;
  while (!changes.empty()) {
    const std::int64_t number = changes.front().first / kSlots;
    const auto others = std::ranges::find_if(
        changes, [&](const Change& change) { return change.first / kSlots != number; });
    std::shared_ptr<const Page>& page = map.pages_[static_cast<std::size_t>(number)];
    slots.fill(std::nullopt);
    if (page != nullptr) {
      auto place = page->places.begin();
      for (std::size_t bit = 0; bit < kSlots; ++bit) {
        if ((page->bits[bit / 64] >> (bit % 64) & 1) != 0) slots[bit] = *place++;
      }
      map.size_ -= static_cast<std::int64_t>(page->places.size());
    }
    for (auto change = changes.begin(); change != others; ++change) {
      slots[static_cast<std::size_t>(change->first % kSlots)] = change->second;
    }
    auto next = std::make_shared<Page>();
    for (std::size_t bit = 0; bit < kSlots; ++bit) {
      if (bit % 64 == 0) next->rank[bit / 64] = static_cast<std::uint16_t>(next->places.size());
      const auto& place = slots[bit];
      if (!place) continue;
      next->bits[bit / 64] |= std::uint64_t{1} << (bit % 64);
      next->places.push_back(*place);
    }
    map.size_ += static_cast<std::int64_t>(next->places.size());
    page = next->places.empty() ? nullptr : std::move(next);
    changes = changes.subspan(static_cast<std::size_t>(others - changes.begin()));
  }
  map.put_into_filter(added);
  return map;
}

void OverrideMap::put_into_filter(std::span<const Change> changes) {
  const auto put = [this](std::int64_t slot) {
    const std::size_t hash = hash_of(slot);
    filter_[hash / 64] |= std::uint64_t{1} << (hash % 64);
    ++filtered_;
  };
  constexpr std::int64_t kStale = 4096;
  const int bits = filter_bits(size_);
  const bool fits = bits <= 64 - filter_shift_ &&
                    filtered_ + static_cast<std::int64_t>(changes.size()) <= 2 * size_ + kStale;
  if (fits) {
    for (const auto& [slot, place] : changes) {
      if (place) put(slot);
    }
    return;
  }
  filter_shift_ = 64 - bits;
  filter_.assign(std::size_t{1} << (bits - 6), 0);
  filtered_ = 0;
  for (std::size_t number = 0; number < pages_.size(); ++number) {
    for (std::int64_t bit = 0; pages_[number] != nullptr && bit < kSlots; ++bit) {
      const auto at = static_cast<std::size_t>(bit);
      if ((pages_[number]->bits[at / 64] >> (at % 64) & 1) != 0) {
        put(static_cast<std::int64_t>(number) * kSlots + bit);
      }
    }
  }
}

OverrideMap OverrideMap::with_slots(std::int64_t slots) const {
  OverrideMap map = *this;
  map.pages_.resize(static_cast<std::size_t>((slots + kSlots - 1) / kSlots));
  return map;
}

}  // namespace memlayers::pool

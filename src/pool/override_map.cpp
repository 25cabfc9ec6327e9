// SPDX-License-Identifier: Apache-2.0
#include "pool/override_map.h"

#include <algorithm>

namespace memlayers::pool {

OverrideMap OverrideMap::with(std::span<const Change> changes) const {
  OverrideMap map = *this;
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
  return map;
}

OverrideMap OverrideMap::with_slots(std::int64_t slots) const {
  OverrideMap map = *this;
  map.pages_.resize(static_cast<std::size_t>((slots + kSlots - 1) / kSlots));
  return map;
}

}  // namespace memlayers::pool

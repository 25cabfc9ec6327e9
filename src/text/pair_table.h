// SPDX-License-Identifier: Apache-2.0
// A hash table from pairs of ids to a value: what byte-pair encoding asks at every step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace memlayers::text {

template <typename Value>
class PairTable {
 public:
  // Room for `count` pairs; once, before anything is put.
  void reserve(std::size_t count) {
    std::size_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    slots_.assign(slots, {kEmpty, Value{}});
  }
  // The later of two values of a pair stays.
  void put(std::int32_t left, std::int32_t right, Value value) {
    slots_[slot_of(key_of(left, right))] = {key_of(left, right), value};
  }
  const Value* find(std::int32_t left, std::int32_t right) const {
    if (slots_.empty()) return nullptr;
    const auto& slot = slots_[slot_of(key_of(left, right))];
    return slot.first == kEmpty ? nullptr : &slot.second;
  }

 private:
  static constexpr std::uint64_t kEmpty = UINT64_MAX;  // of no pair: ids are not negative

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }
  // Where the key is, or would be.
  std::size_t slot_of(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::uint64_t mixed = key * 0x9E3779B97F4A7C15u;
    mixed ^= mixed >> 32;
    std::size_t at = static_cast<std::size_t>(mixed) & mask;
    while (slots_[at].first != kEmpty && slots_[at].first != key) at = (at + 1) & mask;
    return at;
  }

  std::vector<std::pair<std::uint64_t, Value>> slots_;
};

}  // namespace memlayers::text

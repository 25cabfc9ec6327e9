// SPDX-License-Identifier: Apache-2.0
#include "text/vocabulary.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace memlayers::text {

bool Vocabulary::add(std::string_view token, std::int32_t id) {
  if (2 * (entries_.size() + 1) > slots_.size()) grow();
  std::uint32_t& slot = slots_[slot_of(token)];
  if (slot != 0) return false;
  entries_.push_back({id, static_cast<std::uint32_t>(token.size()), text_.size()});
  text_ += token;
  slot = static_cast<std::uint32_t>(entries_.size());
  return true;
}

std::optional<std::int32_t> Vocabulary::sort() {
  by_id_.resize(entries_.size());
  std::iota(by_id_.begin(), by_id_.end(), 0u);
  const auto id_of = [&](std::uint32_t at) { return entries_[at].id; };
  std::sort(by_id_.begin(), by_id_.end(),
            [&](std::uint32_t a, std::uint32_t b) { return id_of(a) < id_of(b); });
  for (std::size_t i = 1; i < by_id_.size(); ++i) {
    if (id_of(by_id_[i - 1]) == id_of(by_id_[i])) return id_of(by_id_[i]);
  }
  return std::nullopt;
}

std::optional<std::int32_t> Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const std::uint32_t slot = slots_[slot_of(token)];
  return slot == 0 ? std::nullopt : std::optional(entries_[slot - 1].id);
}

std::string_view Vocabulary::token(std::int32_t id) const {
  if (id < 0) return {};
  // Without gaps before it a token stands at its id.
  const auto guess = static_cast<std::size_t>(id);
  if (guess < by_id_.size() && entries_[by_id_[guess]].id == id) {
    return text_of(entries_[by_id_[guess]]);
  }
  const auto found =
      std::lower_bound(by_id_.begin(), by_id_.end(), id,
                       [&](std::uint32_t at, std::int32_t each) { return entries_[at].id < each; });
  if (found == by_id_.end() || entries_[*found].id != id) return {};
  return text_of(entries_[*found]);
}

std::int64_t Vocabulary::id_end() const {
  return by_id_.empty() ? 0 : std::int64_t{entries_[by_id_.back()].id} + 1;
}

// Where the token's place is, or would be.
std::size_t Vocabulary::slot_of(std::string_view token) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = std::hash<std::string_view>{}(token)&mask;
  while (slots_[at] != 0 && text_of(entries_[slots_[at] - 1]) != token) at = (at + 1) & mask;
  return at;
}

void Vocabulary::grow() {
  slots_.assign(std::max<std::size_t>(16, 2 * slots_.size()), 0);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    slots_[slot_of(text_of(entries_[i]))] = static_cast<std::uint32_t>(i + 1);
  }
}

}  // namespace memlayers::text

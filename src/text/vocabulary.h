// SPDX-License-Identifier: Apache-2.0
// Tokens by text and by id. Memory goes with the number of tokens, whatever their ids are: ids may
// have gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::text {

constexpr std::int64_t kMaxTokenId = (1 << 24) - 1;

class Vocabulary {
 public:
  // False, and nothing added, where the text has an id already.
  bool add(std::string_view token, std::int32_t id);
  // Behind the last add(). The id that two tokens have, if any does.
  std::optional<std::int32_t> sort();

  std::optional<std::int32_t> find(std::string_view token) const;
  // "" where no token has this id. Asks for sort().
  std::string_view token(std::int32_t id) const;
  std::size_t size() const { return entries_.size(); }
  std::int64_t id_end() const;  // behind the largest id. Asks for sort().

 private:
  struct Entry {
    std::int32_t id;
    std::uint32_t bytes;
    std::size_t begin;  // in text_
  };
  std::string_view text_of(const Entry& entry) const {
    return std::string_view(text_).substr(entry.begin, entry.bytes);
  }
  std::size_t slot_of(std::string_view token) const;
  void grow();

  std::string text_;                  // of all tokens
  std::vector<Entry> entries_;        // as added
  std::vector<std::uint32_t> by_id_;  // places in entries_
  std::vector<std::uint32_t> slots_;  // places in entries_ + 1, by hash; 0 where none
};

}  // namespace memlayers::text

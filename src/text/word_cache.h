// SPDX-License-Identifier: Apache-2.0
// The tokens of the short words that one text has had so far: most words of a text come again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace memlayers::text {

class WordCache {
 public:
  static bool takes(std::string_view word) { return word.size() <= kMaxBytes; }

  // Appends the tokens of a word that was kept.
  bool append(std::string_view word, std::vector<std::int32_t>& tokens) const {
    const auto found = words_.find(word);
    if (found == words_.end()) return false;
    const auto [begin, count] = found->second;
    const auto first = tokens_.begin() + static_cast<std::ptrdiff_t>(begin);
    tokens.insert(tokens.end(), first, first + static_cast<std::ptrdiff_t>(count));
    return true;
  }
  // Keeps the tokens from `begin` on as those of `word`, while there is room.
  void keep(std::string_view word, const std::vector<std::int32_t>& tokens, std::size_t begin) {
    if (words_.size() >= kMaxWords) return;
    words_.emplace(word, std::pair(tokens_.size(), tokens.size() - begin));
    tokens_.insert(tokens_.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                   tokens.end());
  }

 private:
  static constexpr std::size_t kMaxBytes = 48, kMaxWords = 1 << 15;
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const {
      return std::hash<std::string_view>{}(word);
    }
  };
  std::unordered_map<std::string, std::pair<std::size_t, std::size_t>, Hash, std::equal_to<>>
      words_;  // begin and count in tokens_
  std::vector<std::int32_t> tokens_;
};

}  // namespace memlayers::text

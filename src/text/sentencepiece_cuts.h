// SPDX-License-Identifier: Apache-2.0
// Where a text may be cut for SentencePiece, which takes some 200 bytes for each byte that it is
// given, without changing its tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_set>

#include "text/tokenizer_file.h"

namespace memlayers::text {

// Filled by add(); immutable from then on. `traits` must outlive it.
class SentencePieceCuts {
 public:
  explicit SentencePieceCuts(const SentencePieceTraits& traits);
  void add(std::string_view piece, bool is_normal);

  // The first place at or behind `from`, which is not 0, where what the character before it becomes
  // and what stands there becomes are together in no piece; text.size() where there is none. What
  // is before a cut, and what is from one character before it on, have the tokens that they have in
  // the whole text.
  std::size_t next(std::string_view text, std::size_t from) const;

 private:
  bool is_cut(std::string_view text, std::size_t begin, std::size_t at) const;
  bool is_joined(char32_t left, char32_t right) const;

  const SentencePieceTraits& traits_;
  std::unordered_set<std::uint64_t> joined_;  // neighbours in some piece: left << 32 | right
  std::unordered_set<char32_t> known_;        // characters that are pieces themselves
  // With a map of characters: those whose own target does not tell what they become.
  std::unordered_set<char32_t> dependent_;
};

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding over given merges, as Hugging Face's tokenizers do it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/json_field.h"

namespace memlayers::text {

// Immutable after construction.
class Bpe {
 public:
  explicit Bpe(const JsonField& model);  // "model" of a tokenizer.json

  // Appends the tokens of one word. Time is n log n in its length.
  void encode(std::string_view word, std::vector<std::int32_t>& tokens) const;

  std::optional<std::int32_t> find(std::string_view token) const;
  const std::vector<std::string>& tokens() const { return tokens_; }  // by id; "" where none is
  std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }

 private:
  struct Merge {
    std::int32_t rank, token;
  };
  struct Symbol {
    std::int32_t token, previous, next;
    bool is_merged;
  };
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };

  void read_vocab(const JsonField& vocab);
  void read_merges(const JsonField& merges);
  std::vector<Symbol> split(std::string_view word) const;
  void merge(std::vector<Symbol>& symbols) const;
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  std::int32_t find_character(char32_t code, std::string_view spelled) const;
  void encode_part(std::string_view word, std::vector<std::int32_t>& tokens) const;

  std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>> ids_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::uint64_t, Merge> merges_;  // left << 32 | right
  std::array<std::int32_t, 0x3000> characters_;      // tokens of one common character, or -1
  std::array<std::int32_t, 256> bytes_;              // "<0x..>", or -1
  std::optional<std::int32_t> unknown_;
  bool fuse_unknown_, byte_fallback_, ignore_merges_;
  bool can_cut_ = false;  // no merge joins the end of a word and a following "▁"
};

}  // namespace memlayers::text

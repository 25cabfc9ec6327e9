// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding over given merges, as Hugging Face's tokenizers do it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/pair_table.h"
#include "text/token_model.h"

namespace memlayers::text {

class Bpe : public TokenModel {
 public:
  explicit Bpe(const JsonField& model);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool is_bpe() const override { return true; }
  // Time is linear in the length of a word, times the logarithm of what cannot be cut.
  void encode(std::string_view word, WordCache& cache,
              std::vector<std::int32_t>& tokens) const override;

 private:
  struct Merge {
    std::int32_t rank, token;
  };
  struct Symbol {
    std::int32_t token, previous, next;
    bool is_merged;
  };
  class Splitter;

  void read_merges(const JsonField& merges);
  void read_symbols();
  void read_joints(const std::vector<std::pair<std::int32_t, std::int32_t>>& merged);
  void merge(std::vector<Symbol>& symbols) const;
  std::int32_t find_character(char32_t code, std::string_view spelled) const;

  Vocabulary vocabulary_;
  PairTable<Merge> merges_;
  PairTable<bool> joints_;                       // symbols that some merge brings together
  std::array<std::int32_t, 0x3000> characters_;  // tokens of one common character, or -1
  std::array<std::int32_t, 256> bytes_;          // "<0x..>", or -1
  std::optional<std::int32_t> unknown_;
  bool fuse_unknown_, byte_fallback_, ignore_merges_;
};

}  // namespace memlayers::text

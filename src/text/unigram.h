// SPDX-License-Identifier: Apache-2.0
// The unigram model, as Hugging Face's tokenizers run it: of all ways to cut a word into tokens the
// one with the largest sum of scores.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/token_model.h"

namespace memlayers::text {

class Unigram : public TokenModel {
 public:
  explicit Unigram(const JsonField& model);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool is_bpe() const override { return false; }
  // Time is linear in the length of a word, times that of the longest token; memory goes with the
  // longest stretch that tokens reach across without a gap.
  void encode(std::string_view word, WordCache& cache,
              std::vector<std::int32_t>& tokens) const override;

 private:
  class Path;

  void read_vocab(const JsonField& vocab);
  void add_token(std::string_view text, std::vector<std::int32_t>& tokens) const;

  Vocabulary vocabulary_;
  std::vector<double> scores_;  // by id
  double unknown_score_ = 0;
  std::optional<std::int32_t> unknown_;
  bool byte_fallback_;
  std::array<std::int32_t, 256> bytes_;  // "<0x..>", or -1
  ByteTrie trie_;
};

}  // namespace memlayers::text

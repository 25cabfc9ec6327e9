// SPDX-License-Identifier: Apache-2.0
// The model of BERT: always the longest token, then the longest that goes on from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"
#include "text/token_model.h"

namespace memlayers::text {

class WordPiece : public TokenModel {
 public:
  explicit WordPiece(const JsonField& model);

  const Vocabulary& vocabulary() const override { return vocabulary_; }
  bool is_bpe() const override { return false; }
  // Time is linear in the length of a word, times that of the longest token.
  void encode(std::string_view word, WordCache& cache,
              std::vector<std::int32_t>& tokens) const override;

 private:
  bool put_pieces(std::string_view word, std::vector<std::int32_t>& tokens) const;

  Vocabulary vocabulary_;
  ByteTrie trie_;
  ByteTrie::Node continuing_ = ByteTrie::kRoot;  // behind the prefix of tokens inside a word
  bool has_continuing_ = true;                   // whether there are any
  std::optional<std::int32_t> unknown_;
  std::size_t most_characters_;  // a longer word is unknown
};

}  // namespace memlayers::text

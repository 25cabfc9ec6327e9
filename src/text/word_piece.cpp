// SPDX-License-Identifier: Apache-2.0
#include "text/word_piece.h"

#include <algorithm>

#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::text {

WordPiece::WordPiece(const JsonField& model)
    : vocabulary_(read_vocabulary(model.at("vocab"))),
      trie_(vocabulary_),
      unknown_(vocabulary_.find(model.at("unk_token").string())),
      most_characters_(
          static_cast<std::size_t>(model.at("max_input_chars_per_word").integer(0, INT64_MAX))) {
  if (vocabulary_.find("")) model.at("vocab").fail("tokens that are not empty");
  for (const char byte : model.at("continuing_subword_prefix").string()) {
    continuing_ = trie_.next(continuing_, byte);
    has_continuing_ = has_continuing_ && continuing_ != ByteTrie::kRoot;
  }
}

// False where a part of the word has no token.
bool WordPiece::put_pieces(std::string_view word, std::vector<std::int32_t>& tokens) const {
  for (std::size_t begin = 0; begin < word.size();) {
    if (begin > 0 && !has_continuing_) return false;
    ByteTrie::Node node = begin == 0 ? ByteTrie::kRoot : continuing_;
    std::size_t found_end = begin;
    std::int32_t found = -1;
    for (std::size_t end = begin; end < word.size();) {
      node = trie_.next(node, word[end++]);
      if (node == ByteTrie::kRoot) break;
      if (trie_.token(node) < 0) continue;
      found = trie_.token(node);
      found_end = end;
    }
    if (found < 0) return false;
    tokens.push_back(found);
    begin = found_end;
  }
  return true;
}

void WordPiece::encode(std::string_view word, WordCache& cache,
                       std::vector<std::int32_t>& tokens) const {
  const bool is_kept = WordCache::takes(word);
  if (word.empty() || (is_kept && cache.append(word, tokens))) return;
  const std::size_t first = tokens.size();
  const auto characters =
      static_cast<std::size_t>(std::count_if(word.begin(), word.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      }));
  if (characters > most_characters_ || !put_pieces(word, tokens)) {
    if (!unknown_) {
      throw Error(
          "text to encode: expected words of the tokenizer's vocabulary, which has no unknown "
          "token, got " +
          io::quote(word));
    }
    tokens.resize(first);
    tokens.push_back(*unknown_);
  }
  if (is_kept) cache.keep(word, tokens, first);
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// The merges that a SentencePiece vocabulary of scores stands for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/gguf/vocabulary.h"

namespace memlayers::io::gguf {

struct TokenPair {
  std::uint32_t left, right;  // ids
};

// Longer tokens would make the search for their halves more than what a file's size allows.
inline constexpr std::size_t kMostMergedBytes = 512;
// Real vocabularies have two merges a token.
inline constexpr std::size_t kMostMergesAToken = 16;

// Every way to put a normal token together of two others, the best scores first; of equal scores
// those with the longer left half, and so on, as transformers makes them. Tokens that stand for
// something are neither parts nor results: no text may become one. Throws Error beginning with
// `where` for a token of more than kMostMergedBytes and for more than kMostMergesAToken on average.
std::vector<TokenPair> merges_of_scores(const Vocabulary& vocabulary, std::span<const float> scores,
                                        const std::string& where);

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
// The bytes of all tokens as one tree, so that what is true of the beginning of many is found once.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memlayers/tokenizer.h"

namespace memlayers::api::grammar {

using ByteSet = std::bitset<256>;

// What stands for itself in a JSON string and is one byte.
bool is_plain(unsigned char byte);

// Immutable. Nodes are numbered as they are met when a node comes before what is below it: below
// node i are those from i + 1 to end(i). The root, which has no byte, is 0.
class TokenTree {
 public:
  explicit TokenTree(const Tokenizer& tokenizer);

  std::int64_t vocab_size() const { return static_cast<std::int64_t>(bytes_of_.size()); }
  // Empty for a token that is no text.
  const std::string& bytes_of(std::int32_t token) const {
    return bytes_of_[static_cast<std::size_t>(token)];
  }
  // Bytes that are a token by themselves: a text of these can always be gone on with.
  const ByteSet& single_bytes() const { return single_bytes_; }
  std::size_t longest() const { return longest_; }         // bytes of a token
  std::size_t most_openings() const { return openings_; }  // '[' and '{' of a token

  std::uint32_t size() const { return static_cast<std::uint32_t>(byte_.size()); }
  unsigned char byte(std::uint32_t node) const { return byte_[node]; }
  std::uint32_t end(std::uint32_t node) const { return end_[node]; }
  // Tokens that end at this node; those that end at it or below.
  std::span<const std::int32_t> tokens(std::uint32_t node) const { return part(node, node + 1); }
  std::span<const std::int32_t> tokens_below(std::uint32_t node) const {
    return part(node, end_[node]);
  }
  // Characters from this node on, at most, where all tokens that end at it or below spell whole
  // ones that stand for themselves in a JSON string, and this node begins one; else 0.
  std::uint16_t plain_length(std::uint32_t node) const { return plain_length_[node]; }

 private:
  std::span<const std::int32_t> part(std::uint32_t first, std::uint32_t last) const {
    return std::span(tokens_).subspan(first_token_[first],
                                      first_token_[last] - first_token_[first]);
  }

  void find_plain();

  std::vector<std::string> bytes_of_;
  std::vector<unsigned char> byte_;
  std::vector<std::uint32_t> end_;
  std::vector<std::uint16_t> plain_length_;
  std::vector<std::uint32_t> first_token_;  // one more than nodes
  std::vector<std::int32_t> tokens_;
  ByteSet single_bytes_;
  std::size_t longest_ = 0, openings_ = 0;
};

}  // namespace memlayers::api::grammar

// SPDX-License-Identifier: Apache-2.0
// SentencePiece's "precompiled_charsmap": which characters become which others. Its bytes: the size
// of a trie; the trie, as a double array of darts-clone (units of four bytes, little-endian) over
// the sources; the targets, each ended by a zero byte, at the places that the trie's leaves tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::text {

// Immutable after construction.
class CharsMap {
 public:
  // Throws, saying what is wrong with the map: "that leads past its end".
  using Fail = std::function<void(const std::string& what)>;

  CharsMap() = default;  // changes nothing
  // Everything that a text can lead to must lie inside `bytes`, be UTF-8 and keep to the bounds
  // below. Calls `fail` where it does not.
  CharsMap(std::string_view bytes, const Fail& fail);

  struct Match {
    std::size_t bytes;  // of the source
    std::string_view target;
  };
  // Of the sources that `text` begins with. The shortest ends before a zero byte.
  std::optional<Match> shortest(std::string_view text) const;
  std::optional<Match> longest(std::string_view text) const;

  bool is_empty() const { return units_.empty(); }
  // Calls each(source) for all of them.
  void for_each_source(const std::function<void(std::string_view)>& each) const;

  // Of a source or a target: 33 in those that exist. And how many there may be: 60,000.
  static constexpr std::uint32_t kMaxBytes = 256, kMaxSources = 1 << 20;

 private:
  // Units: a label in the lowest byte, whose node it is; a bit that says whether a leaf is among
  // its children; where these are, relative to it.
  static constexpr std::uint32_t kBlock = 256;
  std::uint32_t first_child(std::uint32_t node) const {
    const std::uint32_t unit = units_[node];
    return node ^ ((unit >> 10) << ((unit & (1u << 9)) >> 6));
  }
  bool has_leaf(std::uint32_t node) const { return ((units_[node] >> 8) & 1) != 0; }
  bool is_child(std::uint32_t node, std::uint32_t label) const {
    return (units_[node] & 0x800000FF) == label;
  }
  std::uint32_t target_of(std::uint32_t leaf) const { return units_[leaf] & 0x7FFFFFFF; }
  std::string_view target(std::uint32_t begin) const;
  void check(const Fail& fail) const;
  void check_target(std::uint32_t begin, const Fail& fail) const;
  std::optional<Match> find(std::string_view text, bool is_longest) const;

  std::vector<std::uint32_t> units_;
  std::string targets_;
};

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// Pages of keys and values that stay when their sequence has left, for sequences that begin alike.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "memlayers/llama.h"

namespace memlayers::generate {

// What keys and values depend on besides tokens.
struct MemoryState {
  std::optional<Snapshot> rows = {};  // none: a model that reads no store
  bool is_off = false;                // memory layers give nothing, whatever the rows
};

// A tree of pages: a page stands behind the one that its tokens follow, and remembers which slots
// its tokens read. It holds for every state of the pool in which these rows, and those that the
// pages before it read, are the same: they are then computed anew with the same bits. Not for use
// from several threads.
class PrefixCache {
 public:
  struct Node;
  using Place = std::shared_ptr<Node>;  // null: before the first page

  PrefixCache();
  ~PrefixCache();

  struct Found {
    std::vector<std::shared_ptr<KvPage>> pages;
    Place last;
  };
  // The longest run of pages that begin `tokens` and hold for this state.
  Found find(std::span<const std::int32_t> tokens, const MemoryState& state);

  // Puts a full page of these tokens behind `place`, and returns its place: that of an equal one
  // where one is there. `reads`: the slots that its tokens read, in any order and number.
  Place add(const Place& place, std::span<const std::int32_t> tokens, std::shared_ptr<KvPage> page,
            std::vector<std::int64_t> reads, const MemoryState& state);
  static const std::shared_ptr<KvPage>& page_of(const Place& place);  // not of null

  // Of pages that no sequence holds.
  std::int64_t free_bytes() const;
  // Lets the one go that was used least lately, of those that no sequence holds and none stands
  // behind. False: there is none.
  bool drop_one();

 private:
  void touch(Node& node);
  Node* find_child(Node& parent, std::span<const std::int32_t> tokens, const MemoryState& state);

  std::shared_ptr<Node> root_;
  std::list<Node*> used_;  // the least lately used first
};

}  // namespace memlayers::generate

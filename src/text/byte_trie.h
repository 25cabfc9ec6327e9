// SPDX-License-Identifier: Apache-2.0
// All tokens that a text begins with, found in one walk over its bytes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "text/vocabulary.h"

namespace memlayers::text {

// Immutable. Some ten bytes for each byte of the tokens that they do not share.
class ByteTrie {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;

  ByteTrie() = default;
  explicit ByteTrie(const Vocabulary& vocabulary);  // after its sort()

  // The node behind a node and a byte; kRoot where there is none.
  Node next(Node node, char byte) const {
    if (node == kRoot) return roots_[static_cast<unsigned char>(byte)];
    const Entry& entry = nodes_[node];
    const char* const labels = labels_.data() + entry.first;
    for (std::uint32_t i = 0; i < entry.count; ++i) {
      if (labels[i] == byte) return entry.first + i;
    }
    return kRoot;
  }
  // The token that ends here, or -1.
  std::int32_t token(Node node) const { return nodes_[node].token; }

 private:
  struct Entry {
    std::uint32_t first = 0;  // the children stand one behind the other
    std::uint32_t count = 0;
    std::int32_t token = -1;
  };
  std::vector<Entry> nodes_ = std::vector<Entry>(1);
  std::string labels_ = std::string(1, '\0');  // the byte that leads to a node
  std::array<Node, 256> roots_{};              // the root's children
};

}  // namespace memlayers::text

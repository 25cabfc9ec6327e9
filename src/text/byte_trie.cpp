// SPDX-License-Identifier: Apache-2.0
#include "text/byte_trie.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace memlayers::text {
namespace {

struct Token {
  std::string_view text;
  std::int32_t id;
};

// A node while the trie is made: the tokens that go on from it, and how many bytes they share.
struct Open {
  std::size_t begin, end, depth;
};

}  // namespace

ByteTrie::ByteTrie(const Vocabulary& vocabulary) {
  std::vector<Token> tokens;
  tokens.reserve(vocabulary.size());
  for (std::int32_t id = 0; id < vocabulary.id_end(); ++id) {
    const std::string_view text = vocabulary.token(id);
    if (!text.empty()) tokens.push_back({text, id});
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const Token& a, const Token& b) { return a.text < b.text; });
  // Breadth first, so that the children of a node get numbers in a row.
  std::vector<Open> open{{0, tokens.size(), 0}};
  for (std::size_t node = 0; node < open.size(); ++node) {
    auto [begin, end, depth] = open[node];
    if (begin < end && tokens[begin].text.size() == depth) nodes_[node].token = tokens[begin++].id;
    nodes_[node].first = static_cast<std::uint32_t>(nodes_.size());
    while (begin < end) {
      const char byte = tokens[begin].text[depth];
      std::size_t stop = begin + 1;
      while (stop < end && tokens[stop].text[depth] == byte) ++stop;
      if (node == kRoot) {
        roots_[static_cast<unsigned char>(byte)] = static_cast<Node>(nodes_.size());
      }
      labels_ += byte;
      nodes_.emplace_back();
      ++nodes_[node].count;
      open.push_back({begin, stop, depth + 1});
      begin = stop;
    }
  }
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "text/token_trie.h"

#include <algorithm>

namespace memlayers::text {

std::uint32_t TokenTrie::child_of(std::uint32_t state, unsigned char byte) const {
  if (state == 0) return roots_[byte];
  std::uint32_t child = states_[state].child;
  while (child != 0 && states_[child].byte != byte) child = states_[child].sibling;
  return child;
}

void TokenTrie::build(const std::vector<std::string_view>& strings) {
  states_.assign(1, {});
  roots_ = {};
  for (std::size_t i = 0; i < strings.size(); ++i) {
    std::uint32_t state = 0;
    for (std::size_t at = strings[i].size(); at-- > 0;) {
      const auto byte = static_cast<unsigned char>(strings[i][at]);
      std::uint32_t child = child_of(state, byte);
      if (child == 0) {
        child = static_cast<std::uint32_t>(states_.size());
        states_.push_back({.sibling = states_[state].child, .byte = byte});
        states_[state].child = child;
        if (state == 0) roots_[byte] = child;
      }
      state = child;
    }
    State& end = states_[state];
    if (end.length == 0) {
      end.length = static_cast<std::uint32_t>(strings[i].size());
      end.index = static_cast<std::uint32_t>(i);
    }
  }
  // Breadth first: what a state may fall back to is nearer to the root.
  std::vector<std::uint32_t> open = {0};
  for (std::size_t i = 0; i < open.size(); ++i) {
    const std::uint32_t state = open[i];
    for (std::uint32_t child = states_[state].child; child != 0; child = states_[child].sibling) {
      open.push_back(child);
      State& here = states_[child];
      here.fail = state == 0 ? 0 : next(states_[state].fail, here.byte);
      if (here.length == 0) {
        here.length = states_[here.fail].length;
        here.index = states_[here.fail].index;
      }
    }
  }
}

std::uint32_t TokenTrie::next(std::uint32_t state, unsigned char byte) const {
  for (;;) {
    const std::uint32_t child = child_of(state, byte);
    if (child != 0 || state == 0) return child;
    state = states_[state].fail;
  }
}

std::vector<TokenTrie::Match> TokenTrie::find_all(std::string_view text) const {
  std::vector<Match> matches;
  if (is_empty()) return matches;
  std::uint32_t state = 0;
  for (std::size_t at = text.size(); at-- > 0;) {
    state = next(state, static_cast<unsigned char>(text[at]));
    const State& here = states_[state];
    if (here.length != 0) matches.push_back({at, at + here.length, here.index});
  }
  std::reverse(matches.begin(), matches.end());
  std::size_t end = 0;
  std::erase_if(matches, [&](const Match& match) {
    if (match.begin < end) return true;
    end = match.end;
    return false;
  });
  return matches;
}

}  // namespace memlayers::text

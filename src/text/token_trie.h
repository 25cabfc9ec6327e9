// SPDX-License-Identifier: Apache-2.0
// Finds many strings in a text at once, in time that does not go with how many or how long they
// are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace memlayers::text {

// Immutable after build().
class TokenTrie {
 public:
  struct Match {
    std::size_t begin, end;
    std::size_t index;  // of the string
  };

  // The strings are not empty. Of equal ones the first is found.
  void build(const std::vector<std::string_view>& strings);
  bool is_empty() const { return states_.size() <= 1; }
  // From left to right the longest string at each place, none inside another that was found.
  std::vector<Match> find_all(std::string_view text) const;

 private:
  // The strings are stored from their ends, and a text is read from its end: then the state at a
  // place tells the longest string that begins there.
  struct State {
    std::uint32_t child = 0, sibling = 0;  // 0: none
    std::uint32_t fail = 0;                // the longest other string's state that this one ends as
    std::uint32_t length = 0;              // bytes of the longest string that begins here, or 0
    std::uint32_t index = 0;               // of that string
    unsigned char byte = 0;
  };
  std::uint32_t child_of(std::uint32_t state, unsigned char byte) const;
  std::uint32_t next(std::uint32_t state, unsigned char byte) const;

  std::vector<State> states_;  // the first is the root
  std::array<std::uint32_t, 256> roots_{};
};

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// Which tokens may come at a place: one walk over the tree of their bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "api/grammar/states.h"
#include "api/grammar/token_tree.h"

namespace memlayers::api::grammar {

// A bit for each token.
using TokenBits = std::vector<std::uint64_t>;
inline void set_bits(TokenBits& bits, std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    bits[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (token % 64);
  }
}

// Places beyond this number are left out, and the steps of a walk are counted, so that no grammar
// takes long; what may then be left out is tokens of several bytes. The same for the same grammar
// and place, whatever was asked before.
constexpr std::size_t kMostConfigs = 1024;
constexpr std::int64_t kMostSteps = 1 << 20;

// From one state; the states that bytes lead to are found once.
class Walk {
 public:
  Walk(const Program& program, const TokenTree& tree, const Reader& reader, State start);

  // Sets the bits of all tokens below `node` whose bytes lead on from the start.
  void run(std::uint32_t node, TokenBits& bits);
  // Nodes of the tree at which the outermost rule may end, with tokens below them.
  const std::vector<std::uint32_t>& over() const { return over_; }

 private:
  struct Found {
    State state;
    std::uint32_t plain = 0;  // so many plain characters may come, and lead to a like state
    std::array<std::int32_t, 256> next;
  };
  static constexpr std::int32_t kUnknown = -2, kNone = -1;
  std::int32_t put(State state);
  std::int32_t next(std::int32_t from, unsigned char byte, bool is_free);

  const Program& program_;
  const TokenTree& tree_;
  const Reader& reader_;
  std::vector<Found> found_;
  std::map<std::pair<std::vector<Config>, bool>, std::int32_t> known_;
  std::vector<std::uint32_t> over_;
  std::int64_t steps_ = 0;
};

}  // namespace memlayers::api::grammar

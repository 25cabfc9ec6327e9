// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/walk.h"

#include <algorithm>
#include <utility>

namespace memlayers::api::grammar {

Walk::Walk(const Program& program, const TokenTree& tree, const Reader& reader, State start)
    : program_(program), tree_(tree), reader_(reader) {
  put(std::move(start));
}

std::int32_t Walk::put(State state) {
  if (state.configs.size() > kMostConfigs) state.configs.resize(kMostConfigs);
  const auto [known, is_new] = known_.emplace(std::pair(state.configs, state.is_over),
                                              static_cast<std::int32_t>(found_.size()));
  if (!is_new) return known->second;
  Found found{.state = std::move(state), .next = {}};
  found.next.fill(kUnknown);
  for (const Config& config : found.state.configs) {
    const Node& node = program_.node(config.node);
    if (!node.begins_text) continue;
    const std::uint32_t most = program_.rule(node.rule).most;
    found.plain = std::max(found.plain, most == kUnlimited ? kUnlimited : most - config.count + 1);
  }
  found_.push_back(std::move(found));
  return known->second;
}

std::int32_t Walk::next(std::int32_t from, unsigned char byte, bool is_free) {
  const auto at = static_cast<std::size_t>(from);
  if (found_[at].next[byte] != kUnknown) return found_[at].next[byte];
  if (!is_free && steps_ > kMostSteps) return kNone;
  steps_ += static_cast<std::int64_t>(found_[at].state.configs.size());
  State state = reader_.step(found_[at].state, byte);
  steps_ += 4 * static_cast<std::int64_t>(state.configs.size());
  const std::int32_t to = state.is_empty() ? kNone : put(std::move(state));
  return found_[at].next[byte] = to;
}

void Walk::run(std::uint32_t node, TokenBits& bits) {
  // One byte is always looked at: there is a token of it.
  for (std::uint32_t child = node + 1; child < tree_.end(node); child = tree_.end(child)) {
    next(0, tree_.byte(child), true);
  }
  struct Above {
    std::uint32_t end;
    std::int32_t state;
  };
  std::vector<Above> path = {{tree_.end(node), 0}};
  for (std::uint32_t i = node + 1; i < tree_.end(node);) {
    while (i >= path.back().end) path.pop_back();
    const std::int32_t from = path.back().state;
    const std::uint32_t plain = tree_.plain_length(i);
    if (plain > 0 && plain <= found_[static_cast<std::size_t>(from)].plain) {
      set_bits(bits, tree_.tokens_below(i));
      i = tree_.end(i);
      continue;
    }
    const std::int32_t to = next(from, tree_.byte(i), false);
    if (to == kNone) {
      i = tree_.end(i);
      continue;
    }
    set_bits(bits, tree_.tokens(i));
    const State& state = found_[static_cast<std::size_t>(to)].state;
    if (state.is_over && tree_.end(i) > i + 1) over_.push_back(i);
    if (state.configs.empty()) {
      i = tree_.end(i);
    } else {
      path.push_back({tree_.end(i), to});
      ++i;
    }
  }
}

}  // namespace memlayers::api::grammar

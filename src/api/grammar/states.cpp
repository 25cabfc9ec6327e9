// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/states.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

namespace memlayers::api::grammar {
namespace {

static_assert(sizeof(Frame) == 12, "frames are compared as bytes");

std::string bytes_of(const std::vector<Frame>& frames) {
  return {reinterpret_cast<const char*>(frames.data()), frames.size() * sizeof(Frame)};
}

// Few, nearly always.
class Seen {
 public:
  bool insert(const Config& config) {
    if (few_.size() < 24) {
      if (std::ranges::find(few_, config) != few_.end()) return false;
      few_.push_back(config);
      return true;
    }
    if (many_.empty()) many_.insert(few_.begin(), few_.end());
    return many_.insert(config).second;
  }

 private:
  std::vector<Config> few_;
  std::set<Config> many_;
};

}  // namespace

std::uint32_t Stacks::put(std::vector<Frame> frames) {
  std::ranges::sort(frames);
  frames.erase(std::ranges::unique(frames).begin(), frames.end());
  const auto [found, is_new] =
      known_.emplace(bytes_of(frames), static_cast<std::uint32_t>(stacks_.size()));
  if (is_new) {
    const std::uint32_t depth = stacks_[frames.front().stack].depth + 1;
    stacks_.push_back({std::move(frames), depth});
  }
  return found->second;
}

void Stacks::shrink(std::size_t size) {
  for (; stacks_.size() > size; stacks_.pop_back()) known_.erase(bytes_of(stacks_.back().frames));
}

State Reader::step(const State& state, unsigned char byte) const {
  std::vector<Config> open;
  for (const Config& config : state.configs) {
    const Node& node = program_.node(config.node);
    if (node.kind == Kind::kBytes) {
      if (program_.set(node.other)[byte]) {
        open.push_back({.node = node.next, .count = config.count, .stack = config.stack});
      }
    } else if (byte == ' ' && config.blank == 0) {
      open.push_back({.node = node.next, .count = config.count, .stack = config.stack});
    } else if ((byte == ' ' && config.blank <= kMostIndent) ||
               (byte == '\n' && config.blank == 0)) {
      open.push_back(config);
      ++open.back().blank;
    }
  }
  return open.empty() ? State() : close(std::move(open));
}

State Reader::returned(std::uint32_t stack) const {
  std::vector<Config> open;
  for (const Frame& frame : stacks_.frames(stack)) {
    open.push_back({.node = frame.node, .count = frame.count, .stack = frame.stack});
  }
  return close(std::move(open));
}

State Reader::close(std::vector<Config> open) const {
  State state;
  Seen seen;
  while (!open.empty()) {
    const Config config = open.back();
    open.pop_back();
    const std::uint32_t room = room_ - stacks_.depth(config.stack);
    if (program_.height(config.node) > room || !seen.insert(config)) continue;
    const Node& node = program_.node(config.node);
    const auto go = [&](NodeId next, std::uint32_t count) {
      open.push_back({.node = next, .count = count, .stack = config.stack});
    };
    switch (node.kind) {
      case Kind::kBytes:
        state.configs.push_back(config);
        break;
      case Kind::kBlank:
        state.configs.push_back(config);
        go(node.next, config.count);
        break;
      case Kind::kSplit:
        go(node.next, config.count);
        go(node.other, config.count);
        break;
      case Kind::kCall:
        open.push_back({.node = program_.rule(node.other).start,
                        .stack = stacks_.put({{node.next, config.count, config.stack}})});
        break;
      case Kind::kLoop: {
        const Rule& rule = program_.rule(node.rule);
        if (config.count >= rule.least) go(node.next, config.count);
        if (rule.most == kUnlimited) {
          go(node.other, std::min(config.count + 1, rule.least));
        } else if (config.count < rule.most) {
          go(node.other, config.count + 1);
        }
        break;
      }
      case Kind::kReturn:
        if (config.stack == 0) state.is_over = true;
        for (const Frame& frame : stacks_.frames(config.stack)) {
          open.push_back({.node = frame.node, .count = frame.count, .stack = frame.stack});
        }
        break;
    }
  }
  merge(state.configs);
  return state;
}

// Places that differ only in what called them are one, which goes back to either: else their number
// could double with each rule.
void Reader::merge(std::vector<Config>& configs) const {
  const auto place = [&](const Config& config) {
    return std::tuple(config.node, config.count, config.blank, stacks_.depth(config.stack));
  };
  std::ranges::sort(configs, [&](const Config& a, const Config& b) {
    return std::tuple(place(a), a.stack) < std::tuple(place(b), b.stack);
  });
  std::size_t kept = 0;
  for (std::size_t i = 0; i < configs.size();) {
    std::size_t end = i + 1;
    while (end < configs.size() && place(configs[end]) == place(configs[i])) ++end;
    Config one = configs[i];
    if (end > i + 1 && stacks_.depth(one.stack) > 0) {
      std::vector<Frame> frames;
      for (std::size_t j = i; j < end; ++j) {
        const auto& more = stacks_.frames(configs[j].stack);
        frames.insert(frames.end(), more.begin(), more.end());
      }
      one.stack = stacks_.put(std::move(frames));
    }
    configs[kept++] = one;
    i = end;
  }
  configs.resize(kept);
}

}  // namespace memlayers::api::grammar

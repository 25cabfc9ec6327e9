// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/program.h"

#include <algorithm>
#include <string>

#include "api/engine.h"

namespace memlayers::api::grammar {
namespace {

constexpr std::uint32_t kNever = kMostDepth + 1;
constexpr std::int64_t kMostSpent = 200'000;

[[noreturn]] void fail_as_too_large() {
  throw Refusal(400, "invalid_json_schema",
                "response_format: expected a schema of at most " + std::to_string(kMostNodes) +
                    " states, with repetitions written out, got more",
                "response_format");
}

std::array<std::uint64_t, 4> words_of(const ByteSet& set) {
  std::array<std::uint64_t, 4> words{};
  for (std::size_t i = 0; i < 256; ++i) words[i / 64] |= std::uint64_t{set[i]} << (i % 64);
  return words;
}

}  // namespace

RuleId Program::new_rule() {
  rules_.emplace_back();
  return static_cast<RuleId>(rules_.size() - 1);
}

NodeId Program::add(Node node) {
  if (nodes_.size() == kMostNodes) fail_as_too_large();
  node.rule = rule_;
  nodes_.push_back(node);
  return static_cast<NodeId>(nodes_.size() - 1);
}

void Program::spend() {
  if (++spent_ > kMostSpent) fail_as_too_large();
}

NodeId Program::make(Node node) {
  node.rule = rule_;
  const auto found = known_.find(node);
  if (found != known_.end()) return found->second;
  return known_[node] = add(node);
}

NodeId Program::bytes(const ByteSet& set, NodeId next, bool begins_text) {
  const auto [found, is_new] =
      known_sets_.emplace(words_of(set), static_cast<std::uint32_t>(sets_.size()));
  if (is_new) sets_.push_back(set);
  return make(
      {.kind = Kind::kBytes, .begins_text = begins_text, .next = next, .other = found->second});
}

NodeId Program::byte(unsigned char byte, NodeId next) { return range(byte, byte, next); }

NodeId Program::range(unsigned char first, unsigned char last, NodeId next) {
  ByteSet set;
  for (unsigned byte = first; byte <= last; ++byte) set.set(byte);
  return bytes(set, next);
}

NodeId Program::text(std::string_view bytes, NodeId next) {
  for (; !bytes.empty(); bytes.remove_suffix(1)) {
    next = byte(static_cast<unsigned char>(bytes.back()), next);
  }
  return next;
}

NodeId Program::split(NodeId a, NodeId b) {
  return a == b ? a : make({.kind = Kind::kSplit, .next = a, .other = b});
}

NodeId Program::any_of(const std::vector<NodeId>& ways) {
  NodeId all = ways.back();
  for (std::size_t i = ways.size() - 1; i-- > 0;) all = split(ways[i], all);
  return all;
}

NodeId Program::nothing() { return bytes({}, 0); }

void Program::finish(RuleId root, const ByteSet& single) {
  root_ = root;
  std::vector<bool> can_be_spelled;
  for (const ByteSet& set : sets_) can_be_spelled.push_back((set & single).any());
  // From whose heights another one's comes.
  std::vector<std::vector<NodeId>> above(nodes_.size());
  std::vector<std::vector<NodeId>> callers(rules_.size());
  for (NodeId id = 0; id < nodes_.size(); ++id) {
    const Node& node = nodes_[id];
    if (node.kind == Kind::kReturn) continue;
    above[node.next].push_back(id);
    if (node.kind == Kind::kSplit) above[node.other].push_back(id);
    if (node.kind == Kind::kCall) callers[node.other].push_back(id);
    const auto item = rules_[node.rule].item;
    if (node.kind == Kind::kLoop && item) above[*item].push_back(id);
  }
  for (RuleId rule = 0; rule < rules_.size(); ++rule) {
    auto& of_start = above[rules_[rule].start];
    of_start.insert(of_start.end(), callers[rule].begin(), callers[rule].end());
  }
  heights_.assign(nodes_.size(), kNever);
  const auto called = [&](RuleId rule) {
    return std::min(kNever, heights_[rules_[rule].start] + 1);
  };
  const auto height_of = [&](const Node& node) -> std::uint32_t {
    const Rule& rule = rules_[node.rule];
    switch (node.kind) {
      case Kind::kReturn:
        return 0;
      case Kind::kBytes:
        return can_be_spelled[node.other] ? heights_[node.next] : kNever;
      case Kind::kBlank:
        return heights_[node.next];
      case Kind::kSplit:
        return std::min(heights_[node.next], heights_[node.other]);
      case Kind::kCall:
        return std::max(called(node.other), heights_[node.next]);
      case Kind::kLoop:
        return std::max(heights_[node.next],
                        rule.least > 0 && rule.item ? heights_[*rule.item] : 0);
    }
    return kNever;
  };
  // Each may sink kMostDepth times at most.
  std::vector<NodeId> changed(nodes_.size());
  for (NodeId id = 0; id < nodes_.size(); ++id) changed[id] = static_cast<NodeId>(id);
  while (!changed.empty()) {
    const NodeId id = changed.back();
    changed.pop_back();
    const std::uint32_t height = height_of(nodes_[id]);
    if (height >= heights_[id]) continue;
    heights_[id] = height;
    changed.insert(changed.end(), above[id].begin(), above[id].end());
  }
  for (const std::uint32_t height : heights_) {
    if (height < kNever) greatest_height_ = std::max(greatest_height_, height);
  }
  known_.clear();
  known_sets_.clear();
}

}  // namespace memlayers::api::grammar

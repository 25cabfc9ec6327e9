// SPDX-License-Identifier: Apache-2.0
// A grammar of bytes as a network: nodes that take a byte or go on without one, in rules that call
// one another. It is read by all ways at once (states.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "api/grammar/token_tree.h"

namespace memlayers::api::grammar {

using NodeId = std::uint32_t;
using RuleId = std::uint32_t;

constexpr std::uint32_t kUnlimited = UINT32_MAX;
constexpr std::size_t kMostNodes = std::size_t{1} << 17;
// Rules within one another, which are containers of JSON: as deep as parsers of it go, ours too.
constexpr std::uint32_t kMostDepth = 64;
constexpr std::uint32_t kMostIndent = 32;  // spaces behind a line's end

enum class Kind : std::uint8_t {
  kBytes,   // takes a byte of a set
  kBlank,   // takes nothing, a space, or a line's end and up to kMostIndent spaces
  kSplit,   // goes both ways
  kCall,    // a rule, then `next`
  kLoop,    // `other` for one more round, `next` behind the last; rounds are counted
  kReturn,  // the end of a rule
};

struct Node {
  Kind kind = Kind::kReturn;
  bool begins_text =
      false;        // of kBytes: takes plain bytes, and leads back to it by the rule's loop
  RuleId rule = 0;  // to which it belongs
  NodeId next = 0;
  std::uint32_t other = 0;  // the set, the other way, the rule that is called, the loop's body
  auto operator<=>(const Node&) const = default;
};

// One loop of a rule may count its rounds.
struct Rule {
  NodeId start = 0;
  std::uint32_t least = 0, most = kUnlimited;
  std::optional<NodeId> item = {};  // what each round calls, then the rule's end
};

// Built from the ends: each function takes the node to go on with and gives the one to begin with.
// Throws Refusal 400 where it gets too large. After finish(): immutable.
class Program {
 public:
  // Rules are numbered by this; define() gives them their nodes: all that are made meanwhile.
  RuleId new_rule();
  template <class Build>  // Build: the start, of the node that ends the rule
  void define(RuleId rule, const Build& build) {
    rule_ = rule;
    const NodeId start = build(make({.kind = Kind::kReturn}));
    rules_[rule].start = start;
  }

  NodeId bytes(const ByteSet& set, NodeId next, bool begins_text = false);
  NodeId byte(unsigned char byte, NodeId next);
  NodeId range(unsigned char first, unsigned char last, NodeId next);
  NodeId text(std::string_view bytes, NodeId next);
  NodeId blank(NodeId next) { return make({.kind = Kind::kBlank, .next = next}); }
  NodeId call(RuleId rule, NodeId next) {
    return make({.kind = Kind::kCall, .next = next, .other = rule});
  }
  NodeId split(NodeId a, NodeId b);
  NodeId any_of(const std::vector<NodeId>& ways);  // at least one
  NodeId nothing();                                // which no text satisfies
  NodeId maybe(NodeId way, NodeId next) { return split(way, next); }
  // `body` gives the beginning of a round, of the node behind it.
  template <class Body>
  NodeId star(const Body& body, NodeId next) {
    const NodeId again = add({.kind = Kind::kSplit, .next = next});
    const NodeId begin = body(again);
    nodes_[again].other = begin;
    return again;
  }
  // The same, least to most times; the only such loop of its rule.
  template <class Body>
  NodeId loop(std::uint32_t least, std::uint32_t most, std::optional<NodeId> item, const Body& body,
              NodeId next) {
    rules_[rule_].least = least;
    rules_[rule_].most = most;
    rules_[rule_].item = item;
    const NodeId again = add({.kind = Kind::kLoop, .next = next});
    const NodeId begin = body(again);
    nodes_[again].other = begin;
    return again;
  }

  // Throws Refusal 400 where it was called too often: for what may take long and add no node.
  void spend();

  // How deep rules must go at least behind each node, by texts that `single` bytes can spell.
  void finish(RuleId root, const ByteSet& single);
  RuleId root() const { return root_; }
  std::uint32_t greatest_height() const { return greatest_height_; }  // of what can be gone through

  const Node& node(NodeId id) const { return nodes_[id]; }
  const Rule& rule(RuleId id) const { return rules_[id]; }
  const ByteSet& set(std::uint32_t id) const { return sets_[id]; }
  // More than kMostDepth: no text leads from here to the rule's end.
  std::uint32_t height(NodeId id) const { return heights_[id]; }
  std::size_t size() const { return nodes_.size(); }

 private:
  NodeId add(Node node);
  NodeId make(Node node);  // the one that is there, where there is an equal one

  std::vector<Node> nodes_;
  std::vector<Rule> rules_;
  std::vector<ByteSet> sets_;
  std::map<Node, NodeId> known_;
  std::map<std::array<std::uint64_t, 4>, std::uint32_t> known_sets_;
  std::vector<std::uint32_t> heights_;
  RuleId rule_ = 0, root_ = 0;
  std::int64_t spent_ = 0;
  std::uint32_t greatest_height_ = 0;
};

}  // namespace memlayers::api::grammar

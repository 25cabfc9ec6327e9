// SPDX-License-Identifier: Apache-2.0
#include "generate/prefix_cache.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace memlayers::generate {
namespace {

std::size_t hash_of(std::span<const std::int32_t> tokens) {
  return std::hash<std::string_view>()(
      {reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()});
}

}  // namespace

struct PrefixCache::Node : std::enable_shared_from_this<Node> {
  Node* parent = nullptr;  // null for the root
  std::vector<std::int32_t> tokens = {};
  std::shared_ptr<KvPage> page = {};
  std::vector<std::int64_t> reads = {};  // ascending, each once
  MemoryState state = {};                // the latest one that it is known to hold for
  std::unordered_multimap<std::size_t, std::shared_ptr<Node>> children = {};  // by their tokens
  std::list<Node*>::iterator used = {};

  // No sequence holds the page, or stands here.
  bool is_free() const { return page.use_count() == 1 && weak_from_this().use_count() == 1; }

  bool holds_for(const MemoryState& wanted) {
    if (state.is_off || wanted.is_off) return state.is_off == wanted.is_off;
    if (!state.rows || !wanted.rows) return !state.rows && !wanted.rows;
    if (!state.rows->reads_as(*wanted.rows, reads)) return false;
    // Older versions need not be kept for its sake.
    if (wanted.rows->version() > state.rows->version()) state = wanted;
    return true;
  }
};

PrefixCache::PrefixCache() : root_(std::make_shared<Node>()) {}
PrefixCache::~PrefixCache() = default;

void PrefixCache::touch(Node& node) { used_.splice(used_.end(), used_, node.used); }

PrefixCache::Node* PrefixCache::find_child(Node& parent, std::span<const std::int32_t> tokens,
                                           const MemoryState& state) {
  const auto [begin, end] = parent.children.equal_range(hash_of(tokens));
  for (auto child = begin; child != end; ++child) {
    Node& node = *child->second;
    if (std::ranges::equal(node.tokens, tokens) && node.holds_for(state)) return &node;
  }
  return nullptr;
}

PrefixCache::Found PrefixCache::find(std::span<const std::int32_t> tokens,
                                     const MemoryState& state) {
  constexpr auto kTokens = static_cast<std::size_t>(KvPage::kTokens);
  std::vector<Node*> nodes;
  Node* node = root_.get();
  while (tokens.size() >= kTokens) {
    node = find_child(*node, tokens.first(kTokens), state);
    if (node == nullptr) break;
    nodes.push_back(node);
    tokens = tokens.subspan(kTokens);
  }
  Found found;
  for (Node* each : nodes) found.pages.push_back(each->page);
  // The last first: of a run the end goes before the beginning.
  for (auto each = nodes.rbegin(); each != nodes.rend(); ++each) touch(**each);
  if (!nodes.empty()) found.last = nodes.back()->shared_from_this();
  return found;
}

PrefixCache::Place PrefixCache::add(const Place& place, std::span<const std::int32_t> tokens,
                                    std::shared_ptr<KvPage> page, std::vector<std::int64_t> reads,
                                    const MemoryState& state) {
  Node& parent = place == nullptr ? *root_ : *place;
  if (Node* there = find_child(parent, tokens, state)) {
    touch(*there);
    return there->shared_from_this();
  }
  std::ranges::sort(reads);
  reads.erase(std::ranges::unique(reads).begin(), reads.end());
  reads.shrink_to_fit();
  auto node = std::make_shared<Node>();
  node->parent = &parent;
  node->tokens.assign(tokens.begin(), tokens.end());
  node->page = std::move(page);
  node->reads = std::move(reads);
  node->state = state;
  node->used = used_.insert(used_.end(), node.get());
  parent.children.emplace(hash_of(tokens), node);
  return node;
}

std::int64_t PrefixCache::free_bytes() const {
  std::int64_t bytes = 0;
  for (const Node* node : used_) {
    if (node->is_free()) bytes += node->page->bytes();
  }
  return bytes;
}

bool PrefixCache::drop_one() {
  const auto found = std::ranges::find_if(
      used_, [](const Node* node) { return node->children.empty() && node->is_free(); });
  if (found == used_.end()) return false;
  Node& node = **found;
  used_.erase(found);
  const auto [begin, end] = node.parent->children.equal_range(hash_of(node.tokens));
  const auto child =
      std::find_if(begin, end, [&](const auto& each) { return each.second.get() == &node; });
  node.parent->children.erase(child);
  return true;
}

const std::shared_ptr<KvPage>& PrefixCache::page_of(const Place& place) { return place->page; }

}  // namespace memlayers::generate

// SPDX-License-Identifier: Apache-2.0
#include "text/chars_map.h"

#include <algorithm>
#include <cstring>

#include "text/utf8.h"

namespace memlayers::text {

CharsMap::CharsMap(std::string_view bytes, const Fail& fail) {
  std::uint32_t trie_bytes = 0;
  if (bytes.size() < sizeof trie_bytes) fail("of " + std::to_string(bytes.size()) + " bytes");
  std::memcpy(&trie_bytes, bytes.data(), sizeof trie_bytes);
  bytes.remove_prefix(sizeof trie_bytes);
  if (trie_bytes == 0 || trie_bytes % (4 * kBlock) != 0 || trie_bytes >= bytes.size()) {
    fail("with a trie of " + std::to_string(trie_bytes) + " bytes");
  }
  units_.resize(trie_bytes / sizeof(std::uint32_t));
  std::memcpy(units_.data(), bytes.data(), trie_bytes);
  targets_ = bytes.substr(trie_bytes);
  check(fail);
}

// Each node once, behind its children: ends of sources that are alike may share nodes, so what is
// bounded is counted, not walked.
void CharsMap::check(const Fail& fail) const {
  struct Step {
    std::uint32_t node, label;  // the child to look at next
  };
  struct Below {  // what a node leads to
    std::uint32_t sources = 0, bytes = 0;
    enum { kNew, kOpen, kDone } state = kNew;
  };
  std::vector<Below> below(units_.size());
  std::vector<Step> path;
  const auto enter = [&](std::uint32_t node) {
    // All that a byte can lead to is in the block of the first.
    if ((first_child(node) | (kBlock - 1)) >= units_.size()) fail("that leads past its end");
    if (node != 0 && has_leaf(node)) {
      check_target(target_of(first_child(node)), fail);
      below[node].sources = 1;
    }
    below[node].state = Below::kOpen;
    path.push_back({node, 0});
  };
  enter(0);
  while (!path.empty()) {
    Step& step = path.back();
    Below& here = below[step.node];
    if (step.label == kBlock) {
      here.state = Below::kDone;
      path.pop_back();
      continue;
    }
    const std::uint32_t child = first_child(step.node) ^ step.label;
    if (!is_child(child, step.label)) {
      ++step.label;
      continue;
    }
    if (below[child].state == Below::kOpen) fail("with a source that does not end");
    if (below[child].state == Below::kNew) {
      enter(child);  // and look at it again behind that
      continue;
    }
    ++step.label;
    here.bytes = std::max(here.bytes, below[child].bytes + 1);
    here.sources = std::min(kMaxSources + 1, here.sources + below[child].sources);
    if (here.bytes > kMaxBytes || here.sources > kMaxSources) {
      fail("with more than " + std::to_string(kMaxSources) + " sources, or one of more than " +
           std::to_string(kMaxBytes) + " bytes");
    }
  }
}

void CharsMap::check_target(std::uint32_t begin, const Fail& fail) const {
  if (begin >= targets_.size()) fail("with a target past its end");
  const std::size_t end = targets_.find('\0', begin);
  const std::size_t bytes = (end == std::string::npos ? targets_.size() : end) - begin;
  if (bytes > kMaxBytes) {
    fail("with a target of " + std::to_string(bytes) + " bytes");
  }
  if (valid_utf8_bytes(std::string_view(targets_).substr(begin, bytes)) != bytes) {
    fail("with a target that is not UTF-8");
  }
}

std::string_view CharsMap::target(std::uint32_t begin) const {
  const std::size_t end = targets_.find('\0', begin);
  return std::string_view(targets_).substr(begin, end == std::string::npos ? end : end - begin);
}

std::optional<CharsMap::Match> CharsMap::find(std::string_view text, bool is_longest) const {
  std::optional<Match> found;
  if (is_empty()) return found;
  std::uint32_t first = first_child(0);
  for (std::size_t at = 0; at < text.size(); ++at) {
    const std::uint32_t label = static_cast<unsigned char>(text[at]);
    if (label == 0 && !is_longest) break;
    const std::uint32_t node = first ^ label;
    if (!is_child(node, label)) break;
    first = first_child(node);
    if (!has_leaf(node)) continue;
    found = Match{at + 1, target(target_of(first))};
    if (!is_longest) break;
  }
  return found;
}

std::optional<CharsMap::Match> CharsMap::shortest(std::string_view text) const {
  return find(text, false);
}

std::optional<CharsMap::Match> CharsMap::longest(std::string_view text) const {
  return find(text, true);
}

void CharsMap::for_each_source(const std::function<void(std::string_view)>& each) const {
  if (is_empty()) return;
  struct Step {
    std::uint32_t node, label;  // the next one to try
  };
  std::vector<Step> path{{0, 0}};
  std::string source;
  while (!path.empty()) {
    Step& step = path.back();
    if (step.label == kBlock) {
      path.pop_back();
      if (!source.empty()) source.pop_back();
      continue;
    }
    const std::uint32_t label = step.label++;
    const std::uint32_t child = first_child(step.node) ^ label;
    if (!is_child(child, label)) continue;
    source += static_cast<char>(label);
    if (has_leaf(child)) each(source);
    path.push_back({child, 0});
  }
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/merges.h"

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

struct Candidate {
  float score;
  std::uint32_t left_length, right_length;  // in characters
  TokenPair pair;
  auto rank() const { return std::tuple(score, left_length, right_length); }
};

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

std::vector<TokenPair> merges_of_scores(const Vocabulary& vocabulary, std::span<const float> scores,
                                        const std::string& where) {
  std::unordered_map<std::string_view, std::uint32_t> ids;
  ids.reserve(vocabulary.tokens.size());
  for (std::uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.kinds[id] == TokenKind::kNormal) ids.emplace(vocabulary.tokens[id], id);
  }
  std::vector<Candidate> all, own;
  for (std::uint32_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.kinds[id] != TokenKind::kNormal) continue;
    const std::string_view token = vocabulary.tokens[id];
    if (token.size() > kMostMergedBytes) {
      throw Error(where + ": expected tokens of at most " + std::to_string(kMostMergedBytes) +
                  " bytes, got one of " + std::to_string(token.size()) + " with id " +
                  std::to_string(id));
    }
    const auto length = static_cast<std::uint32_t>(std::ranges::count_if(token, begins_character));
    own.clear();
    std::uint32_t characters = 0;
    for (std::size_t at = 1; at < token.size(); ++at) {
      if (!begins_character(token[at])) continue;
      ++characters;
      const auto left = ids.find(token.substr(0, at));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(at));
      if (right == ids.end()) continue;
      own.push_back({scores[id], characters, length - characters, {left->second, right->second}});
    }
    std::ranges::sort(own, {}, [](const Candidate& candidate) {
      return std::pair(candidate.pair.left, candidate.pair.right);
    });
    all.insert(all.end(), own.begin(), own.end());
    if (all.size() > kMostMergesAToken * vocabulary.tokens.size()) {
      throw Error(where + ": expected tokens that are put together in at most " +
                  std::to_string(kMostMergesAToken) + " ways on average, got more");
    }
  }
  std::ranges::stable_sort(all, std::greater<>(), &Candidate::rank);
  std::vector<TokenPair> merges;
  merges.reserve(all.size());
  for (const Candidate& candidate : all) merges.push_back(candidate.pair);
  return merges;
}

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/token_tree.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "text/token_bytes.h"

namespace memlayers::api::grammar {

namespace {

// Whether a byte may stand behind another within a character, as Unicode's table 3-7 says: the
// second byte of some is of fewer.
bool may_follow(unsigned char before, unsigned char byte) {
  const unsigned char least = before == 0xE0 ? 0xA0 : before == 0xF0 ? 0x90 : 0x80;
  const unsigned char most = before == 0xED ? 0x9F : before == 0xF4 ? 0x8F : 0xBF;
  return least <= byte && byte <= most;
}

}  // namespace

bool is_plain(unsigned char byte) {
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

TokenTree::TokenTree(const Tokenizer& tokenizer) {
  for (std::optional<std::string>& bytes : text::token_bytes(tokenizer)) {
    bytes_of_.push_back(std::move(bytes).value_or(""));
  }
  // Files may leave unsaid that these are special.
  for (const auto special : {tokenizer.bos(), tokenizer.eos(), tokenizer.pad()}) {
    if (special) bytes_of_[static_cast<std::size_t>(*special)].clear();
  }
  for (std::int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& bytes = bytes_of(id);
    if (bytes.empty()) continue;
    tokens_.push_back(id);
    longest_ = std::max(longest_, bytes.size());
    openings_ = std::max(openings_, static_cast<std::size_t>(std::ranges::count_if(
                                        bytes, [](char c) { return c == '[' || c == '{'; })));
    if (bytes.size() == 1) single_bytes_.set(static_cast<unsigned char>(bytes[0]));
  }
  std::ranges::sort(tokens_, [&](std::int32_t a, std::int32_t b) {
    return std::tie(bytes_of(a), a) < std::tie(bytes_of(b), b);
  });

  byte_.push_back(0);
  end_.push_back(0);
  first_token_.push_back(0);
  std::vector<std::uint32_t> path = {0};  // the node at each depth
  for (std::uint32_t place = 0; place < tokens_.size(); ++place) {
    const std::string& bytes = bytes_of(tokens_[place]);
    std::size_t depth = 0;
    while (depth + 1 < path.size() && depth < bytes.size() &&
           byte_[path[depth + 1]] == static_cast<unsigned char>(bytes[depth])) {
      ++depth;
    }
    while (path.size() > depth + 1) {
      end_[path.back()] = size();
      path.pop_back();
    }
    for (; depth < bytes.size(); ++depth) {
      path.push_back(size());
      byte_.push_back(static_cast<unsigned char>(bytes[depth]));
      end_.push_back(0);
      first_token_.push_back(place);
    }
  }
  for (const std::uint32_t node : path) end_[node] = size();
  first_token_.push_back(static_cast<std::uint32_t>(tokens_.size()));
  find_plain();
}

void TokenTree::find_plain() {
  constexpr std::uint8_t kNone = 255;
  // How many bytes the character at each node lacks; kNone: it is none that stands for itself.
  std::vector<std::uint8_t> lacks(size());
  for (std::uint32_t node = 0; node < size(); ++node) {
    for (std::uint32_t child = node + 1; child < end_[node]; child = end_[child]) {
      const unsigned char byte = byte_[child];
      if (lacks[node] == 0) {
        lacks[child] = is_plain(byte)               ? 0
                       : byte < 0xC2 || byte > 0xF4 ? kNone
                       : byte < 0xE0                ? 1
                       : byte < 0xF0                ? 2
                                                    : 3;
      } else if (lacks[node] == kNone || !may_follow(byte_[node], byte)) {
        lacks[child] = kNone;
      } else {
        lacks[child] = lacks[node] - 1;
      }
    }
  }
  // From below: characters that end at a node or below, or kNever.
  constexpr std::uint32_t kNever = UINT32_MAX;
  std::vector<std::uint32_t> characters(size());
  plain_length_.assign(size(), 0);
  for (std::uint32_t node = size() - 1; node > 0; --node) {
    bool is_whole = lacks[node] == 0 || (lacks[node] != kNone && tokens(node).empty());
    std::uint32_t below = 0;
    for (std::uint32_t child = node + 1; child < end_[node]; child = end_[child]) {
      is_whole = is_whole && characters[child] != kNever;
      below = std::max(below, characters[child]);
    }
    characters[node] = is_whole ? below + (lacks[node] == 0 ? 1 : 0) : kNever;
  }
  const auto note = [&](std::uint32_t node) {  // what is below a character's end
    for (std::uint32_t child = node + 1; child < end_[node]; child = end_[child]) {
      if (characters[child] <= UINT16_MAX) {
        plain_length_[child] = static_cast<std::uint16_t>(characters[child]);
      }
    }
  };
  for (std::uint32_t node = 0; node < size(); ++node) {
    if (lacks[node] == 0) note(node);
  }
}

}  // namespace memlayers::api::grammar

// SPDX-License-Identifier: Apache-2.0
#include "text/bpe.h"

#include <queue>
#include <utility>

#include "memlayers/error.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";
constexpr std::int64_t kMaxId = (1 << 24) - 1;
constexpr std::size_t kMaxWordBytes = INT32_MAX;

void refuse_affix(const JsonField& model, const std::string& name) {
  const auto affix = model.find(name);
  if (affix && !affix->string().empty()) affix->fail("none");
}

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

std::string byte_token(std::size_t byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">";
}

}  // namespace

Bpe::Bpe(const JsonField& model)
    : fuse_unknown_(model.boolean_or("fuse_unk", false)),
      byte_fallback_(model.boolean_or("byte_fallback", false)),
      ignore_merges_(model.boolean_or("ignore_merges", false)) {
  const auto type = model.find("type");
  if (type && type->string() != "BPE") type->fail("\"BPE\"");
  if (const auto dropout = model.find("dropout")) dropout->fail("null");
  refuse_affix(model, "continuing_subword_prefix");
  refuse_affix(model, "end_of_word_suffix");
  read_vocab(model.at("vocab"));
  read_merges(model.at("merges"));
  if (const auto token = model.find("unk_token")) {
    unknown_ = find(token->string());
    if (!unknown_) token->fail("a token of model.vocab");
  }
  characters_.fill(-1);
  for (char32_t code = 0; code < characters_.size(); ++code) {
    std::string character;
    append_utf8(character, code);
    characters_[code] = find(character).value_or(-1);
  }
  for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
    bytes_[byte] = find(byte_token(byte)).value_or(-1);
  }
}

void Bpe::read_vocab(const JsonField& vocab) {
  for (const auto& [token, field] : vocab.members()) {
    const std::int64_t id = field.integer(0, kMaxId);
    if (token.empty()) field.fail("a token that is not empty");
    const auto at = static_cast<std::size_t>(id);
    if (at >= tokens_.size()) tokens_.resize(at + 1);
    if (!tokens_[at].empty()) field.fail("an id other than that of \"" + tokens_[at] + "\"");
    tokens_[at] = token;
    ids_.emplace(token, static_cast<std::int32_t>(id));
  }
  if (ids_.empty()) vocab.fail("at least one token");
}

// Each is "left right" or ["left", "right"]; its place in the list is its rank.
void Bpe::read_merges(const JsonField& merges) {
  std::int32_t rank = 0;
  can_cut_ = !ignore_merges_ && find(kSpace).has_value();
  for (const JsonField& field : merges.elements()) {
    std::string left, right;
    if (field.is_string()) {
      const std::string& both = field.string();
      if (both.starts_with("#version")) continue;
      const std::size_t space = both.find(' ');
      if (space == std::string::npos || both.find(' ', space + 1) != std::string::npos) {
        field.fail("two tokens and a space");
      }
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else {
      const std::vector<JsonField> both = field.elements();
      if (both.size() != 2) field.fail("two tokens");
      left = both[0].string();
      right = both[1].string();
    }
    const auto left_id = find(left), right_id = find(right), joined = find(left + right);
    if (!left_id || !right_id || !joined) field.fail("tokens of model.vocab, as is their union");
    merges_[pair_key(*left_id, *right_id)] = {rank++, *joined};
    if (right.starts_with(kSpace) && !left.ends_with(kSpace)) can_cut_ = false;
  }
}

std::optional<std::int32_t> Bpe::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::int32_t Bpe::find_character(char32_t code, std::string_view spelled) const {
  return code < characters_.size() ? characters_[code] : find(spelled).value_or(-1);
}

// The characters of a word as tokens. The order of unknown ones among bytes is the original's.
std::vector<Bpe::Symbol> Bpe::split(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  const auto add = [&](std::int32_t token) {
    const auto at = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({token, at - 1, at + 1, false});
  };
  const std::int32_t unknown = unknown_.value_or(-1);
  bool has_unknown = false;  // only where there is a token for it
  for (std::size_t at = 0; at < word.size();) {
    const Utf8Character character = decode_utf8(word.substr(at));
    const std::string_view spelled = word.substr(at, character.bytes);
    at += character.bytes;
    if (const std::int32_t token = find_character(character.code, spelled); token >= 0) {
      if (std::exchange(has_unknown, false)) add(unknown);
      add(token);
      continue;
    }
    const auto token_of = [&](char byte) { return bytes_[static_cast<std::uint8_t>(byte)]; };
    bool has_bytes = byte_fallback_;
    for (const char byte : spelled) has_bytes = has_bytes && token_of(byte) >= 0;
    if (has_bytes) {
      for (const char byte : spelled) add(token_of(byte));
    } else if (unknown >= 0) {
      if (has_unknown && !fuse_unknown_) add(unknown);
      has_unknown = true;
    }
  }
  if (has_unknown) add(unknown);
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

// Always the pair of the lowest rank, the leftmost among equals.
void Bpe::merge(std::vector<Symbol>& symbols) const {
  struct Candidate {
    std::int32_t rank, at, token;
    bool operator<(const Candidate& other) const {  // the queue's top is its greatest
      return std::pair(rank, at) > std::pair(other.rank, other.at);
    }
  };
  const auto symbol = [&](std::int32_t at) -> Symbol& {
    return symbols[static_cast<std::size_t>(at)];
  };
  const auto merge_at = [&](std::int32_t at) {
    return find_merge(symbol(at).token, symbol(symbol(at).next).token);
  };
  std::vector<Candidate> first;
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t at = 0; at + 1 < count; ++at) {
    if (const Merge* merge = merge_at(at)) first.push_back({merge->rank, at, merge->token});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbol(top.at);
    if (left.is_merged || left.next < 0) continue;
    const Merge* current = merge_at(top.at);  // the neighbours may have changed since
    if (current == nullptr || current->token != top.token) continue;
    Symbol& right = symbol(left.next);
    right.is_merged = true;
    left.token = top.token;
    left.next = right.next;
    if (left.next >= 0) symbol(left.next).previous = top.at;
    for (const std::int32_t at : {left.previous, top.at}) {
      if (at < 0 || symbol(at).next < 0) continue;
      if (const Merge* merge = merge_at(at)) queue.push({merge->rank, at, merge->token});
    }
  }
}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& tokens) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (const auto whole = find(word)) return tokens.push_back(*whole);
  }
  // Where no merge spans the start of a "▁", each word is a word of its own: less memory, and
  // faster.
  std::size_t begin = 0;
  if (can_cut_) {
    for (std::size_t at = word.find(kSpace, 1); at != std::string_view::npos;
         at = word.find(kSpace, at + kSpace.size())) {
      if (word.substr(0, at).ends_with(kSpace)) continue;
      encode_part(word.substr(begin, at - begin), tokens);
      begin = at;
    }
  }
  encode_part(word.substr(begin), tokens);
}

void Bpe::encode_part(std::string_view word, std::vector<std::int32_t>& tokens) const {
  if (word.size() > kMaxWordBytes) {
    throw Error("text to encode: expected words below 2 GiB, got one of " +
                std::to_string(word.size()) + " bytes");
  }
  std::vector<Symbol> symbols = split(word);
  merge(symbols);
  for (const Symbol& symbol : symbols) {
    if (!symbol.is_merged) tokens.push_back(symbol.token);
  }
}

}  // namespace memlayers::text

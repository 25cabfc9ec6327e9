// SPDX-License-Identifier: Apache-2.0
#include "text/bpe.h"

#include <queue>
#include <string>
#include <utility>

#include "memlayers/error.h"
#include "text/characters.h"
#include "text/spelled_byte.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

void refuse_affix(const JsonField& model, const std::string& name) {
  const auto affix = model.find(name);
  if (affix && !affix->string().empty()) affix->fail("none");
}

}  // namespace

Bpe::Bpe(const JsonField& model)
    : vocabulary_(read_vocabulary(model.at("vocab"))),
      fuse_unknown_(model.boolean_or("fuse_unk", false)),
      byte_fallback_(model.boolean_or("byte_fallback", false)),
      ignore_merges_(model.boolean_or("ignore_merges", false)) {
  if (const auto dropout = model.find("dropout")) dropout->fail("null");
  refuse_affix(model, "continuing_subword_prefix");
  refuse_affix(model, "end_of_word_suffix");
  if (const auto token = model.find("unk_token")) {
    unknown_ = vocabulary_.find(token->string());
    if (!unknown_) token->fail("a token of model.vocab");
  }
  read_symbols();
  read_merges(model.at("merges"));
}

void Bpe::read_symbols() {
  characters_.fill(-1);
  for (char32_t code = 0; code < characters_.size(); ++code) {
    std::string character;
    append_utf8(character, code);
    characters_[code] = vocabulary_.find(character).value_or(-1);
  }
  for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
    bytes_[byte] = vocabulary_.find(spelled_byte(static_cast<unsigned char>(byte))).value_or(-1);
  }
}

// Each is "left right" or ["left", "right"]; its place in the list is its rank.
void Bpe::read_merges(const JsonField& merges) {
  const std::vector<JsonField> fields = merges.elements();
  std::vector<std::pair<std::int32_t, std::int32_t>> merged;
  merged.reserve(fields.size());
  merges_.reserve(fields.size());
  std::int32_t rank = 0;
  std::string joined;
  for (const JsonField& field : fields) {
    std::string_view left, right;
    if (field.is_string()) {
      const std::string_view both = field.string();
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
    if (left.empty() || right.empty()) field.fail("two tokens that are not empty");
    joined.assign(left);
    joined += right;
    const auto left_id = vocabulary_.find(left), right_id = vocabulary_.find(right),
               joined_id = vocabulary_.find(joined);
    if (!left_id || !right_id || !joined_id) field.fail("tokens of model.vocab, as is their union");
    merges_.put(*left_id, *right_id, {rank++, *joined_id});
    merged.emplace_back(*left_id, *right_id);
  }
  read_joints(merged);
}

// A merge brings together the last symbol of its left token and the first of its right one. What a
// token may end with: its last character, a byte that its end spells, the unknown token.
void Bpe::read_joints(const std::vector<std::pair<std::int32_t, std::int32_t>>& merged) {
  const auto add = [](std::vector<std::int32_t>& symbols, std::optional<std::int32_t> symbol) {
    if (symbol && *symbol >= 0) symbols.push_back(*symbol);
  };
  const auto byte_of = [&](std::string_view spelled) -> std::optional<std::int32_t> {
    const auto byte = byte_fallback_ ? read_spelled_byte(spelled) : std::nullopt;
    return byte ? std::optional(bytes_[*byte]) : std::nullopt;
  };
  const std::string_view unknown = unknown_ ? vocabulary_.token(*unknown_) : std::string_view();
  std::vector<std::pair<std::int32_t, std::int32_t>> joints;
  std::vector<std::int32_t> lasts, firsts;
  for (const auto& [left_id, right_id] : merged) {
    const std::string_view left = vocabulary_.token(left_id), right = vocabulary_.token(right_id);
    lasts.clear();
    firsts.clear();
    add(lasts, vocabulary_.find(last_character(left)));
    add(firsts, vocabulary_.find(first_character(right)));
    if (left.size() >= kSpelledByteSize) {
      add(lasts, byte_of(left.substr(left.size() - kSpelledByteSize)));
    }
    add(firsts, byte_of(right.substr(0, kSpelledByteSize)));
    if (unknown_ && left.ends_with(unknown)) lasts.push_back(*unknown_);
    if (unknown_ && right.starts_with(unknown)) firsts.push_back(*unknown_);
    for (const std::int32_t last : lasts) {
      for (const std::int32_t first : firsts) joints.emplace_back(last, first);
    }
  }
  joints_.reserve(joints.size());
  for (const auto& [last, first] : joints) joints_.put(last, first, true);
}

std::int32_t Bpe::find_character(char32_t code, std::string_view spelled) const {
  return code < characters_.size() ? characters_[code] : vocabulary_.find(spelled).value_or(-1);
}

// Reads a word as symbols, and merges them from one place that no merge reaches across to the next:
// memory does not go with the length of a word, and parts that come again are found in the cache.
class Bpe::Splitter {
 public:
  Splitter(const Bpe& bpe, std::string_view word, WordCache& cache,
           std::vector<std::int32_t>& tokens)
      : bpe_(bpe),
        word_(word),
        cache_(cache),
        tokens_(tokens),
        unknown_(bpe.unknown_.value_or(-1)) {}

  void run() {
    for (at_ = 0; at_ < word_.size();) {
      const Utf8Character character = decode_utf8(word_.substr(at_));
      take(character.code, word_.substr(at_, character.bytes));
      at_ += character.bytes;
    }
    end_part();
  }

 private:
  // The order of unknown characters among bytes is the original's.
  void take(char32_t code, std::string_view spelled) {
    if (const std::int32_t token = bpe_.find_character(code, spelled); token >= 0) {
      if (std::exchange(has_unknown_, false)) add(unknown_);
      cut_before(token);
      return add(token);
    }
    const auto token_of = [&](char byte) { return bpe_.bytes_[static_cast<std::uint8_t>(byte)]; };
    bool has_bytes = bpe_.byte_fallback_;
    for (const char byte : spelled) has_bytes = has_bytes && token_of(byte) >= 0;
    if (has_bytes) {
      if (!has_unknown_) cut_before(token_of(spelled.front()));
      for (const char byte : spelled) add(token_of(byte));
    } else if (unknown_ >= 0) {
      if (has_unknown_ && bpe_.fuse_unknown_) return;
      if (has_unknown_) add(unknown_);
      has_unknown_ = false;
      cut_before(unknown_);
      has_unknown_ = true;
    }
  }

  void add(std::int32_t token) {
    const auto at = static_cast<std::int32_t>(symbols_.size());
    symbols_.push_back({token, at - 1, at + 1, false});
  }

  void cut_before(std::int32_t token) {
    if (symbols_.empty() || bpe_.joints_.find(symbols_.back().token, token) != nullptr) return;
    end_part();
  }

  void end_part() {
    if (std::exchange(has_unknown_, false)) add(unknown_);
    const std::string_view part = word_.substr(begin_, at_ - begin_);
    begin_ = at_;
    if (symbols_.empty()) return;
    const bool is_kept = part.size() < word_.size() && symbols_.size() > 1 &&
                         WordCache::takes(part) && !WordCache::takes(word_);
    if (!is_kept || !cache_.append(part, tokens_)) {
      const std::size_t first = tokens_.size();
      if (symbols_.size() > kMaxSymbols) {
        throw Error("text to encode: expected words below " + std::to_string(kMaxSymbols) +
                    " characters, got one of " + std::to_string(symbols_.size()));
      }
      symbols_.back().next = -1;
      bpe_.merge(symbols_);
      for (const Symbol& symbol : symbols_) {
        if (!symbol.is_merged) tokens_.push_back(symbol.token);
      }
      if (is_kept) cache_.keep(part, tokens_, first);
    }
    symbols_.clear();
  }

  static constexpr std::size_t kMaxSymbols = INT32_MAX;
  const Bpe& bpe_;
  const std::string_view word_;
  WordCache& cache_;
  std::vector<std::int32_t>& tokens_;
  const std::int32_t unknown_;
  std::size_t begin_ = 0, at_ = 0;  // of the part, and of the character
  std::vector<Symbol> symbols_;
  bool has_unknown_ = false;  // one that is not yet among the symbols
};

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
    return merges_.find(symbol(at).token, symbol(symbol(at).next).token);
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

void Bpe::encode(std::string_view word, WordCache& cache, std::vector<std::int32_t>& tokens) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (const auto whole = vocabulary_.find(word)) return tokens.push_back(*whole);
  }
  const bool is_kept = WordCache::takes(word);
  if (is_kept && cache.append(word, tokens)) return;
  const std::size_t first = tokens.size();
  Splitter(*this, word, cache, tokens).run();
  if (is_kept) cache.keep(word, tokens, first);
}

}  // namespace memlayers::text

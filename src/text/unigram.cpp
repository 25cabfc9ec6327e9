// SPDX-License-Identifier: Apache-2.0
#include "text/unigram.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "io/shown.h"
#include "memlayers/error.h"
#include "text/characters.h"
#include "text/spelled_byte.h"

namespace memlayers::text {

Unigram::Unigram(const JsonField& model)
    : byte_fallback_(model.boolean_or("byte_fallback", false)) {
  for (const char* sampling : {"alpha", "nbest_size"}) {
    if (const auto field = model.find(sampling)) field->fail("null");
  }
  read_vocab(model.at("vocab"));
  if (const auto id = model.find("unk_id")) {
    const auto most = static_cast<std::int64_t>(vocabulary_.size()) - 1;
    unknown_ = static_cast<std::int32_t>(id->integer(0, most));
  }
  for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
    bytes_[byte] = vocabulary_.find(spelled_byte(static_cast<unsigned char>(byte))).value_or(-1);
  }
  trie_ = ByteTrie(vocabulary_);
}

// [token, score] each; its place in the list is its id.
void Unigram::read_vocab(const JsonField& vocab) {
  constexpr double kUnknownPenalty = 10;
  double lowest = std::numeric_limits<double>::infinity();
  for (const JsonField& field : vocab.elements()) {
    const std::vector<JsonField> both = field.elements();
    if (both.size() != 2) field.fail("a token and its score");
    const std::string& token = both[0].string();
    if (token.empty()) field.fail("a token that is not empty");
    if (static_cast<std::int64_t>(scores_.size()) > kMaxTokenId) {
      vocab.fail("at most " + std::to_string(kMaxTokenId + 1) + " tokens");
    }
    if (!vocabulary_.add(token, static_cast<std::int32_t>(scores_.size()))) {
      field.fail("each token once");
    }
    scores_.push_back(both[1].number());
    lowest = std::min(lowest, scores_.back());
  }
  if (scores_.empty()) vocab.fail("at least one token");
  vocabulary_.sort();
  unknown_score_ = lowest - kUnknownPenalty;
}

// Viterbi's search from the start of a word to its end. Where no token reaches across a place, all
// before it is decided: it is given away, and the search goes on from there with the score that was
// reached, since sums of doubles depend on what they begin with.
class Unigram::Path {
 public:
  Path(const Unigram& model, std::string_view word, std::vector<std::int32_t>& tokens)
      : model_(model), word_(word), tokens_(tokens) {}

  void run() {
    cuts_.emplace_back();
    for (std::size_t begin = 0; begin < word_.size();) {
      if (begin == reached_ && begin > first_) decide();
      begin += extend(begin);
    }
    decide();
    end_unknown();
  }

 private:
  struct Cut {  // the best way to reach a place
    double score = 0;
    std::int32_t token = -1;
    std::size_t begin = 0;
    bool is_reached = false;
  };

  void reach(std::size_t begin, std::size_t end, std::int32_t token, double score) {
    reached_ = std::max(reached_, end);
    if (cuts_.size() <= end - first_) cuts_.resize(end - first_ + 1);
    const double sum = score + cuts_[begin - first_].score;
    Cut& cut = cuts_[end - first_];
    if (cut.is_reached && sum <= cut.score) return;
    cut = {.score = sum, .token = token, .begin = begin, .is_reached = true};
  }

  // All tokens that begin here. Returns the bytes of the character that does.
  std::size_t extend(std::size_t begin) {
    const std::size_t character = first_character(word_.substr(begin)).size();
    bool has_character = false;
    ByteTrie::Node node = ByteTrie::kRoot;
    for (std::size_t end = begin; end < word_.size();) {
      node = model_.trie_.next(node, word_[end]);
      if (node == ByteTrie::kRoot) break;
      ++end;
      const std::int32_t token = model_.trie_.token(node);
      if (token < 0) continue;
      reach(begin, end, token, model_.scores_[static_cast<std::size_t>(token)]);
      has_character = has_character || end - begin == character;
    }
    if (has_character) return character;
    if (!model_.unknown_) {
      throw Error(
          "text to encode: expected characters of the tokenizer's vocabulary, which has no unknown "
          "token, got " +
          io::quote(word_.substr(begin, character)));
    }
    reach(begin, begin + character, *model_.unknown_, model_.unknown_score_);
    return character;
  }

  // Gives the tokens of what was reached, and begins anew behind it.
  void decide() {
    parts_.clear();
    for (std::size_t end = reached_; end > first_;) {
      const Cut& cut = cuts_[end - first_];
      parts_.push_back({cut.begin, end, cut.token});
      end = cut.begin;
    }
    for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
      if (part->token == model_.unknown_) {  // those in a row are one
        if (unknown_begin_ == unknown_end_) unknown_begin_ = part->begin;
        unknown_end_ = part->end;
      } else {
        end_unknown();
        tokens_.push_back(part->token);
      }
    }
    const double score = cuts_[reached_ - first_].score;
    first_ = reached_;
    cuts_.assign(1, {.score = score});
  }

  void end_unknown() {
    if (unknown_begin_ == unknown_end_) return;
    model_.add_token(word_.substr(unknown_begin_, unknown_end_ - unknown_begin_), tokens_);
    unknown_begin_ = unknown_end_;
  }

  struct Part {
    std::size_t begin, end;
    std::int32_t token;
  };
  const Unigram& model_;
  const std::string_view word_;
  std::vector<std::int32_t>& tokens_;
  std::size_t first_ = 0, reached_ = 0;              // what cuts_ is about
  std::size_t unknown_begin_ = 0, unknown_end_ = 0;  // not given yet
  std::vector<Cut> cuts_;                            // by place, from first_ on
  std::vector<Part> parts_;                          // from the last to the first
};

// A stretch of unknown characters may be a token as a whole, else its bytes may be.
void Unigram::add_token(std::string_view text, std::vector<std::int32_t>& tokens) const {
  if (const auto id = vocabulary_.find(text)) return tokens.push_back(*id);
  const auto byte_token = [&](char c) { return bytes_[static_cast<unsigned char>(c)]; };
  if (byte_fallback_ &&
      std::all_of(text.begin(), text.end(), [&](char c) { return byte_token(c) >= 0; })) {
    for (const char c : text) tokens.push_back(byte_token(c));
  } else if (unknown_) {
    tokens.push_back(*unknown_);
  }
}

void Unigram::encode(std::string_view word, WordCache& cache,
                     std::vector<std::int32_t>& tokens) const {
  const bool is_kept = WordCache::takes(word);
  if (word.empty() || (is_kept && cache.append(word, tokens))) return;
  const std::size_t first = tokens.size();
  Path(*this, word, tokens).run();
  if (is_kept) cache.keep(word, tokens, first);
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "text/added_vocabulary.h"

#include <algorithm>
#include <utility>

#include "io/shown.h"
#include "memlayers/error.h"
#include "text/characters.h"
#include "text/unicode.h"
#include "text/unicode_class.h"
#include "text/vocabulary.h"

namespace memlayers::text {
AddedToken read_added_token(const JsonField& field, std::optional<std::int32_t> id) {
  AddedToken token{.content = field.at("content").string()};
  if (token.content.empty()) field.fail("a content that is not empty");
  token.id = id ? *id : static_cast<std::int32_t>(field.at("id").integer(0, kMaxTokenId));
  token.special = field.boolean_or("special", false);
  token.single_word = field.boolean_or("single_word", false);
  token.lstrip = field.boolean_or("lstrip", false);
  token.rstrip = field.boolean_or("rstrip", false);
  token.normalized = field.boolean_or("normalized", !token.special);
  return token;
}

AddedVocabulary::AddedVocabulary() : word_(Regex::trusted("[" + word_class() + "]")) {}

void AddedVocabulary::put(AddedToken token) {
  const auto [found, is_new] = by_content_.emplace(token.content, tokens_.size());
  by_id_[token.id] = found->second;
  if (is_new) {
    tokens_.push_back(std::move(token));
  } else {
    tokens_[found->second] = std::move(token);
  }
}

void AddedVocabulary::build(const std::string& where,
                            const std::function<std::string(std::string_view)>& normalize) {
  special_.clear();
  has_normalized_special_ = false;
  for (const AddedToken& token : tokens_) {
    if (token.special) special_.insert(token.content);
  }
  for (const bool is_normalized : {false, true}) {
    Search& search = is_normalized ? normalized_ : plain_;
    search.tokens.clear();
    std::vector<std::string> contents;
    // Of two that are found alike a special one wins.
    for (const bool is_special : {true, false}) {
      for (std::size_t i = 0; i < tokens_.size(); ++i) {
        AddedToken& token = tokens_[i];
        if (token.normalized != is_normalized || token.special != is_special) continue;
        has_normalized_special_ = has_normalized_special_ || (is_normalized && is_special);
        search.tokens.push_back(i);
        token.decoded = is_normalized ? normalize(token.content) : token.content;
        contents.push_back(token.decoded);
        if (token.decoded.empty()) {
          throw Error(where + ": added_tokens: expected a normalizer that leaves something of " +
                      io::quote(token.content) + ", got nothing");
        }
      }
    }
    search.trie.build({contents.begin(), contents.end()});
  }
}

const AddedToken* AddedVocabulary::find(const std::string& content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedVocabulary::find(std::int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

bool AddedVocabulary::is_word_at(std::string_view text) const {
  return !text.empty() && word_.matches(first_character(text));
}

bool AddedVocabulary::is_word_before(std::string_view text) const {
  return !text.empty() && word_.matches(last_character(text));
}

std::vector<TextPart> AddedVocabulary::split(std::string_view text,
                                             std::span<const TextRange> own) const {
  return split(plain_, text, own);
}

std::vector<TextPart> AddedVocabulary::split_normalized(std::string_view text,
                                                        std::span<const TextRange> own) const {
  return split(normalized_, text, own);
}

// The special tokens of what is our own first, so that nothing beside them hides one; between them
// as tokenizers does it: what was found and is not taken hides what it covers all the same.
std::vector<TokenTrie::Match> AddedVocabulary::find_all(const Search& search, std::string_view text,
                                                        std::span<const TextRange> own) const {
  std::vector<TokenTrie::Match> found;
  std::size_t done = 0;
  const auto find = [&](std::size_t begin, std::size_t end, bool is_special, const auto& each) {
    for (TokenTrie::Match match : search.trie.find_all(text.substr(begin, end - begin))) {
      if (tokens_[search.tokens[match.index]].special != is_special) continue;
      match.begin += begin;
      match.end += begin;
      each(match);
    }
  };
  const auto find_between = [&](std::size_t end) {
    find(done, end, false, [&](const TokenTrie::Match& match) { found.push_back(match); });
  };
  for (const TextRange& range : own) {
    find(range.begin, range.end, true, [&](const TokenTrie::Match& match) {
      find_between(match.begin);
      found.push_back(match);
      done = match.end;
    });
  }
  find_between(text.size());
  return found;
}

std::vector<TextPart> AddedVocabulary::split(const Search& search, std::string_view text,
                                             std::span<const TextRange> own) const {
  std::vector<TextPart> parts;
  std::size_t done = 0;
  for (const TokenTrie::Match& match : find_all(search, text, own)) {
    const AddedToken& token = tokens_[search.tokens[match.index]];
    std::size_t begin = match.begin, end = match.end;
    if (token.single_word &&
        (is_word_before(text.substr(0, begin)) || is_word_at(text.substr(end)))) {
      continue;
    }
    while (token.lstrip && begin > done) {
      const std::string_view before = last_character(text.substr(0, begin));
      if (!is_space(decode_utf8(before).code)) break;
      begin -= before.size();
    }
    if (token.lstrip) begin = std::max(begin, done);
    while (token.rstrip && end < text.size()) {
      const std::string_view behind = first_character(text.substr(end));
      if (!is_space(decode_utf8(behind).code)) break;
      end += behind.size();
    }
    if (done < begin) parts.push_back({done, begin});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size()});
  return parts;
}

}  // namespace memlayers::text

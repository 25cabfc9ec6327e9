// SPDX-License-Identifier: Apache-2.0
// "added_tokens" of a tokenizer.json: tokens that are looked for in the text itself, before the
// model sees it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_field.h"
#include "text/regex.h"
#include "text/token_trie.h"

namespace memlayers::text {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = false;                 // a control token: no part of any text
  bool single_word = false;             // only where no letter or digit stands at its side
  bool lstrip = false, rstrip = false;  // takes the spaces before or behind it
  bool normalized = false;              // looked for in the normalized text
  std::string decoded = {};             // what decoders get: normalized as it is looked for
  bool operator==(const AddedToken&) const = default;
};

// `content` and the flags of an object; the id is given or in the object.
AddedToken read_added_token(const JsonField& field, std::optional<std::int32_t> id = {});

// A stretch of text, or a token that was found in it.
struct TextPart {
  std::size_t begin = 0, end = 0;
  std::optional<std::int32_t> token = {};
};

// [begin, end) of a text.
struct TextRange {
  std::size_t begin = 0, end = 0;
};

// Filled by put(), then build(); immutable from then on.
class AddedVocabulary {
 public:
  AddedVocabulary();

  // A token of the same content is replaced, in its place.
  void put(AddedToken token);
  // `normalize` gives what the normalizer makes of a token's content. Throws Error with `where` for
  // a token of which it leaves nothing.
  void build(const std::string& where,
             const std::function<std::string(std::string_view)>& normalize);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  const AddedToken* find(const std::string& content) const;
  const AddedToken* find(std::int32_t id) const;
  // Of a token's text: what decode() leaves out.
  bool is_special(std::string_view content) const { return special_.contains(content); }

  // What spells a special token is text, unless all of it lies in one of `own`, which are ascending
  // and apart. There it is found whatever stands around it.
  std::vector<TextPart> split(std::string_view text, std::span<const TextRange> own) const;
  std::vector<TextPart> split_normalized(std::string_view text,
                                         std::span<const TextRange> own) const;
  // Whether split_normalized() has special tokens to find.
  bool has_normalized_special() const { return has_normalized_special_; }

 private:
  struct Search {
    TokenTrie trie;
    std::vector<std::size_t> tokens;  // places in tokens_, by the trie's indices
  };
  std::vector<TextPart> split(const Search& search, std::string_view text,
                              std::span<const TextRange> own) const;
  std::vector<TokenTrie::Match> find_all(const Search& search, std::string_view text,
                                         std::span<const TextRange> own) const;
  bool is_word_at(std::string_view text) const;
  bool is_word_before(std::string_view text) const;

  std::vector<AddedToken> tokens_;  // in the order of the file
  std::map<std::string, std::size_t, std::less<>> by_content_;
  std::map<std::int32_t, std::size_t> by_id_;
  std::set<std::string, std::less<>> special_;
  Search plain_, normalized_;
  bool has_normalized_special_ = false;
  Regex word_;  // one character of a word
};

}  // namespace memlayers::text

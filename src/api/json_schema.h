// SPDX-License-Identifier: Apache-2.0
// Answers that are JSON of a schema (docs/serving.md has the subset): grammars for a sampler.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memlayers/generate_options.h"
#include "memlayers/tokenizer.h"

namespace memlayers::api {

namespace grammar {
class TokenTree;
}

// For one tokenizer, which is needed only while this is made. Safe to use from several threads.
//
// An answer is one JSON value in UTF-8 without blanks around it; an end token may come when it is
// whole. Between its parts stand no blanks, one space, or a line's end and a few spaces. Special
// tokens never come. What was compiled lately is kept.
class JsonGrammars {
 public:
  // Throws Error for a tokenizer that cannot spell ASCII byte by byte: no answer could be ended.
  // At most 150 milliseconds for 100,000 tokens.
  JsonGrammars(const Tokenizer& tokenizer, std::vector<std::int32_t> end_tokens);
  ~JsonGrammars();

  // Throws Refusal 400 naming the keyword and its place, for what is no schema, not of the subset,
  // too large, or satisfied by nothing.
  std::shared_ptr<const Grammar> schema(std::string_view schema);
  std::shared_ptr<const Grammar> object();  // any JSON object

 private:
  const std::shared_ptr<const grammar::TokenTree> tree_;
  const std::vector<std::int32_t> end_tokens_;
  std::mutex mutex_;
  // Guarded by mutex_. The last one used is the first.
  std::list<std::pair<std::string, std::shared_ptr<const Grammar>>> kept_;
};

}  // namespace memlayers::api

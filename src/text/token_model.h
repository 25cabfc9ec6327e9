// SPDX-License-Identifier: Apache-2.0
// "model" of a tokenizer.json: the tokens of one word.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/json_field.h"
#include "text/vocabulary.h"
#include "text/word_cache.h"

namespace memlayers::text {

// Immutable after construction.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual const Vocabulary& vocabulary() const = 0;
  virtual bool is_bpe() const = 0;
  // Appends the tokens of one word. `cache` is of this model and one caller.
  virtual void encode(std::string_view word, WordCache& cache,
                      std::vector<std::int32_t>& tokens) const = 0;
};

// "vocab" of all but Unigram: {token: id}. Throws Error for one without tokens, or with an id
// twice.
Vocabulary read_vocabulary(const JsonField& vocab);

std::unique_ptr<const TokenModel> read_token_model(const JsonField& model);

}  // namespace memlayers::text

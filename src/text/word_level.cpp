// SPDX-License-Identifier: Apache-2.0
#include "text/word_level.h"

#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::text {

WordLevel::WordLevel(const JsonField& model)
    : vocabulary_(read_vocabulary(model.at("vocab"))),
      unknown_(vocabulary_.find(model.at("unk_token").string())) {
  if (vocabulary_.find("")) model.at("vocab").fail("tokens that are not empty");
}

void WordLevel::encode(std::string_view word, WordCache&, std::vector<std::int32_t>& tokens) const {
  if (word.empty()) return;
  const auto token = vocabulary_.find(word);
  if (!token && !unknown_) {
    throw Error(
        "text to encode: expected words of the tokenizer's vocabulary, which has no unknown token, "
        "got " +
        io::quote(word));
  }
  tokens.push_back(token ? *token : *unknown_);
}

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
#include "text/token_model.h"

#include <string>

#include "text/bpe.h"
#include "text/unigram.h"
#include "text/word_level.h"
#include "text/word_piece.h"

namespace memlayers::text {
namespace {

// Of an older file, which does not say it.
std::string usual_type(const JsonField& model) {
  if (model.find("merges")) return "BPE";
  if (model.at("vocab").is_array()) return "Unigram";
  return model.find("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

}  // namespace

Vocabulary read_vocabulary(const JsonField& vocab) {
  Vocabulary vocabulary;
  for (const auto& [token, field] : vocab.members()) {
    vocabulary.add(token, static_cast<std::int32_t>(field.integer(0, kMaxTokenId)));
  }
  if (vocabulary.size() == 0) vocab.fail("at least one token");
  if (const auto id = vocabulary.sort()) {
    vocab.fail("an id for each token, got " + std::to_string(*id) + " twice");
  }
  return vocabulary;
}

std::unique_ptr<const TokenModel> read_token_model(const JsonField& model) {
  const std::string type = model.find("type") ? model.at("type").string() : usual_type(model);
  if (type == "BPE") return std::make_unique<Bpe>(model);
  if (type == "Unigram") return std::make_unique<Unigram>(model);
  if (type == "WordPiece") return std::make_unique<WordPiece>(model);
  if (type == "WordLevel") return std::make_unique<WordLevel>(model);
  model.at("type").fail("BPE, Unigram, WordPiece or WordLevel");
}

}  // namespace memlayers::text

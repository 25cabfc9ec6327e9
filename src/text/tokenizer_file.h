// SPDX-License-Identifier: Apache-2.0
// The two tokenizer files behind load_tokenizer(). The bytes are untrusted: anything wrong with
// them is an Error that begins with `path`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memlayers/tokenizer.h"
#include "text/chars_map.h"
#include "text/tokenizer_settings.h"

namespace memlayers::text {

// `beside`: the files that the settings were read from.
std::shared_ptr<const Tokenizer> parse_sentencepiece(const std::string& path, std::string bytes,
                                                     const TokenizerSettings& settings = {},
                                                     TokenizerFiles beside = {});
std::shared_ptr<const Tokenizer> parse_json_tokenizer(const std::string& path, std::string bytes,
                                                      const TokenizerSettings& settings = {},
                                                      TokenizerFiles beside = {});

// The files of a tokenizer for a model's folder: files(), and for a model with memory, where they
// have none, a tokenizer_config.json that names its class in transformers (python/memlayers/hf).
// load_tokenizer() does not count that one among files().
TokenizerFiles files_for_folder(const Tokenizer& tokenizer, bool has_memory);

// What libsentencepiece takes on trust. Throws Error for bytes that are no model, or one that could
// make it read out of bounds, and for what it would do otherwise than our contract says.
struct SentencePieceTraits {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  CharsMap chars_map = {};                 // of the normalizer
  std::vector<std::string> verbatim = {};  // pieces that the normalizer leaves as they are
  std::string unknown_surface = " \xE2\x81\x87 ";
  bool is_bpe = false;  // else unigram
};
SentencePieceTraits check_sentencepiece(const std::string& path, const std::string& bytes);

struct ScoredPiece {
  std::string text;
  float score;
  std::int32_t type;  // 1 normal, 2 unknown, 3 control, 4 the user's, 5 unused, 6 a byte
};
// Of bytes that check_sentencepiece() has seen; by id.
std::vector<ScoredPiece> scored_pieces(const std::string& path, const std::string& bytes);

}  // namespace memlayers::text

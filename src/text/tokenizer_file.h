// SPDX-License-Identifier: Apache-2.0
// The two tokenizer files behind load_tokenizer(). The bytes are untrusted: anything wrong with
// them is an Error that begins with `path`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "memlayers/tokenizer.h"

namespace memlayers::text {

// What a tokenizer_config.json says. A field that is absent leaves the choice to the tokenizer
// file; a null means that there is no such token.
struct SpecialNames {
  struct Name {
    bool given = false;
    std::optional<std::string> piece = {};
  };
  std::string path;  // of the file, for messages
  Name bos, eos, pad;
};

std::shared_ptr<const Tokenizer> parse_sentencepiece(const std::string& path, std::string bytes,
                                                     const SpecialNames& names = {});
std::shared_ptr<const Tokenizer> parse_json_tokenizer(const std::string& path, std::string bytes,
                                                      const SpecialNames& names = {});

// What libsentencepiece takes on trust. Throws Error for bytes that are no model, or one that could
// make it read out of bounds, and for what it would do otherwise than our contract says.
struct SentencePieceTraits {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool has_chars_map = false;  // a normalizer with rules
  std::string unknown_surface = " \xE2\x81\x87 ";
};
SentencePieceTraits check_sentencepiece(const std::string& path, const std::string& bytes);

}  // namespace memlayers::text

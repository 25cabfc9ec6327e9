// SPDX-License-Identifier: Apache-2.0
// What tokenizer_config.json and special_tokens_map.json say beside a tokenizer file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_vocabulary.h"

namespace memlayers::text {

struct TokenizerSettings {
  // A field that is absent leaves the choice to the tokenizer file; a null means that there is no
  // such token.
  struct Name {
    bool given = false;
    std::optional<std::string> piece = {};
    std::string field = {};  // where it stands, for messages
  };
  Name bos, eos, pad;
  std::vector<std::string> special;  // the texts of all control tokens that are named
  std::vector<AddedToken> added;     // "added_tokens_decoder"
  std::string path;                  // of tokenizer_config.json, for messages
  // Whether BOS and EOS are put around a text, where no tokenizer.json says it: transformers 5
  // passes both over beside one.
  std::optional<bool> add_bos = {}, add_eos = {};
  // Whether a space is put before a text, where a tokenizer class is named that asks for it.
  std::optional<bool> add_prefix = {};
  bool cleans_up = false;  // takes spaces before punctuation out of decoded text
};

// The bytes of the two files, where there are any. Throws Error naming file and field.
TokenizerSettings read_tokenizer_settings(const std::string& config_path,
                                          const std::optional<std::string>& config,
                                          const std::string& map_path,
                                          const std::optional<std::string>& map);

}  // namespace memlayers::text

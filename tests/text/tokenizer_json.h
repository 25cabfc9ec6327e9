// SPDX-License-Identifier: Apache-2.0
// Small tokenizer.json files, made in a test.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer_file.h"

namespace memlayers::text {

// A BPE of the printable ASCII characters, whose ids they are, and of these merges ("a b") behind
// them, from 200 on. Without a normalizer, a pre-tokenizer or special tokens.
inline nlohmann::json ascii_tokenizer(const std::vector<std::string>& merges = {}) {
  nlohmann::json vocab;
  for (int c = ' '; c <= '~'; ++c) vocab[std::string(1, static_cast<char>(c))] = c;
  int id = 200;
  for (std::string merge : merges) vocab[merge.erase(merge.find(' '), 1)] = id++;
  return {{"added_tokens", nlohmann::json::array()},
          {"decoder", {{"type", "Fuse"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

inline std::shared_ptr<const Tokenizer> parse(const nlohmann::json& json,
                                              const TokenizerSettings& settings = {}) {
  return parse_json_tokenizer("tokenizer.json", json.dump(), settings);
}

}  // namespace memlayers::text

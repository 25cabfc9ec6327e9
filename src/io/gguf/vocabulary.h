// SPDX-License-Identifier: Apache-2.0
// The tokens in the head of a GGUF file: their texts and kinds, and those that stand for something.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/gguf/metadata.h"

namespace memlayers::io::gguf {

inline constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

struct SpecialTokens {
  std::int64_t vocab_size = 0;  // 0: the file has no tokens
  std::optional<std::int64_t> bos = {}, eos = {}, unknown = {}, pad = {};
  std::optional<std::int64_t> end_of_turn = {}, end_of_message = {};
  // Those that end a generation, each once.
  std::vector<std::int64_t> ends() const;
};

// Throws Error naming file and key for an id outside the vocabulary.
SpecialTokens read_special_tokens(const Metadata& metadata);

// By the numbers that files have.
enum class TokenKind : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Vocabulary {
  std::vector<std::string> tokens;  // UTF-8, each once, none empty
  std::vector<TokenKind> kinds;     // as many
};
// Throws Error naming file, key and token for what is not so. An empty token, which no text can
// hold, becomes "[EMPTY_<id>]", as in llama.cpp.
Vocabulary read_vocabulary(const Metadata& metadata);

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
// The tokenizer in the head of a GGUF file, as the files that Hugging Face's tools read. Of BPE
// over bytes ("gpt2") with the pre-tokenizers default, gpt-2, llama-bpe, qwen2 and smollm; of
// SentencePiece ("llama") with scores. Others are refused by name.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/gguf/metadata.h"

namespace memlayers::io::gguf {

// All throw Error naming file and key for what is wrong or would not be exact.
std::string tokenizer_json(const Metadata& metadata);
std::string tokenizer_config_json(const Metadata& metadata);
std::optional<std::string> chat_template(const Metadata& metadata);

// How text is cut into words, by the names that files have for it.
struct KnownWords {
  std::string name, json;  // "pre_tokenizer" of a tokenizer.json
  bool ignores_merges;     // of its model
};
std::vector<KnownWords> known_words();

}  // namespace memlayers::io::gguf

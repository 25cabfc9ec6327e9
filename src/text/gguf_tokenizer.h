// SPDX-License-Identifier: Apache-2.0
// A tokenizer as GGUF files have it.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf/writer.h"
#include "memlayers/tokenizer.h"

namespace memlayers::text {

// Puts tokens, kinds, merges or scores, special tokens and what stands around a text. `vocab_size`:
// how many tokens the model has; those that the tokenizer lacks are "[PAD<id>]". Throws Error
// beginning with `where` for a tokenizer that GGUF has no model and words for, or that a reader of
// GGUF would take otherwise.
void put_tokenizer(io::gguf::Writer& writer, const Tokenizer& tokenizer, std::int64_t vocab_size,
                   const std::string& where);

}  // namespace memlayers::text

// SPDX-License-Identifier: Apache-2.0
// What a verb writes is new: nothing that is there is replaced.
#pragma once

#include <string>

#include "memlayers/llama.h"

namespace memlayers::cli {

// Throws Error where something is at `path`. `what`: "file" or "folder".
void check_is_new(const std::string& path, const std::string& what);

// A model folder at `path`, whole or not at all, with the tokenizer of the one in `source`.
void write_new_model(const std::string& path, const Llama& model, const std::string& source);

}  // namespace memlayers::cli

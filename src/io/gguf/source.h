// SPDX-License-Identifier: Apache-2.0
// A GGUF file as a model: its weights under Hugging Face's names and in their order of rows, its
// texts as Hugging Face's folders have them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "io/file_system.h"
#include "io/gguf/file.h"
#include "io/model_source.h"

namespace memlayers::io::gguf {

// Weights of a type of blocks are read as float32.
std::unique_ptr<ModelSource> open_source(FileSystem& fs, const std::string& path);

// As ModelSource::text(): config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json, chat_template.jinja.
std::optional<std::string> text_of(const File& file, const std::string& name);

}  // namespace memlayers::io::gguf

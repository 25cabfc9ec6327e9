// SPDX-License-Identifier: Apache-2.0
// A model of any source as a folder.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "io/file_system.h"
#include "io/model_source.h"
#include "memlayers/config.h"

namespace memlayers::io {

// What is done so far, in numbers of weights.
using Progress = std::function<void(std::int64_t done)>;

std::int64_t numbers_in(const ModelSource& source);

// A new folder in Hugging Face's layout, whole or not at all: config.json, model.safetensors with
// all weights of type `dtype`, and the texts that the source has: generation_config.json,
// tokenizer.json, tokenizer_config.json, chat_template.jinja. Takes no more memory than a few
// megabytes. Throws Error where something is at `folder`, for what the source cannot read and for
// weights that are not finite.
void write_model_folder(FileSystem& fs, const ModelSource& source, const std::string& folder,
                        DenseType dtype, const Progress& progress);

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// A model of any source as a GGUF file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "io/file_system.h"
#include "io/gguf/types.h"
#include "io/gguf/writer.h"
#include "io/model_source.h"

namespace memlayers::io::gguf {

// Keys of the configuration, as llama.cpp's converter writes them. Throws Error beginning with
// `where` for a model that GGUF has no architecture for, such as one with memory layers.
void put_config(Writer& writer, const ModelConfig& config, const TensorType& type,
                const std::string& where);

// Writes what `keys` has and the weights of `source`: matrices as `type` (of rows that do not fill
// its blocks: float16), all else as float32; queries and keys in pairs where the architecture has
// them so; factors of frequencies for LLaMA 3's RoPE. `progress` is told how many numbers are done.
void write_model(FileSystem& fs, const ModelSource& source, const Writer& keys,
                 const TensorType& type, const std::string& path,
                 const std::function<void(std::int64_t done)>& progress);

}  // namespace memlayers::io::gguf

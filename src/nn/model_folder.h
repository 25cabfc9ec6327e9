// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "io/file_system.h"
#include "memlayers/llama.h"
#include "nn/pool_files.h"

namespace memlayers {

// save_model() of llama.h through any file system; a checkpoint is written so. `generation`: of the
// pool's chunks. Returns the pool's files, and which process of the memory group wrote each.
nn::WrittenFiles save_model(io::FileSystem& fs, const Llama& model, const std::string& path,
                            std::uint64_t generation = 0);

// What save_model() writes, all processes together: rounded, without config.json and headers.
std::uint64_t bytes_to_save(const Llama& model);

// load_model() of llama.h with weights of blocks of 8 and 4 bits as the numbers they stand for.
Llama load_widened(io::FileSystem& fs, const std::string& path);

// open_model() of llama.h through any file system.
Llama open_model(io::FileSystem& fs, const std::string& path, const StoreOptions& options = {});

// All of a model folder but its pool: model.safetensors and config.json.
void save_dense(io::FileSystem& fs, const Llama& model, const std::string& path);

// The pool in `folder` as its store has it, which must be the one that config.json of the model
// describes: throws Error where it is not. After a growth that was interrupted it has more rows, of
// which the first are the pool as it was.
StoreReader open_pool(io::FileSystem& fs, const ModelConfig& config, const std::string& folder,
                      const StoreOptions& options = {});

}  // namespace memlayers

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

}  // namespace memlayers

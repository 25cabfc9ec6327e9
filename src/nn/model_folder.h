// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "io/file_system.h"
#include "memlayers/llama.h"

namespace memlayers {

// save_model() of llama.h through any file system; a checkpoint is written so.
void save_model(io::FileSystem& fs, const Llama& model, const std::string& path);

}  // namespace memlayers

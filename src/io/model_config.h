// SPDX-License-Identifier: Apache-2.0
// config.json in the Hugging Face layout <-> ModelConfig. The memory's keys stand under
// "memlayers": {...}; a plain LLaMA folder has none.
#pragma once

#include <string>

#include "io/file_system.h"
#include "memlayers/config.h"

namespace memlayers::io {

// Reads both spellings of RoPE ("rope_theta" + "rope_scaling", and "rope_parameters"), both of the
// dtype ("torch_dtype", "dtype"), eos_token_id as a number or a list. Throws Error naming file and
// field for anything missing, of a wrong type, impossible, or not supported (another architecture,
// activation or rope type).
ModelConfig read_model_config(FileSystem& fs, const std::string& path);
std::string model_config_json(const ModelConfig& config);

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// config.json in the Hugging Face layout <-> ModelConfig. The memory's keys stand under
// "memlayers": {...}; a plain LLaMA folder has none.
#pragma once

#include <string>
#include <string_view>

#include "io/file_system.h"
#include "memlayers/config.h"

namespace memlayers::io {

// Reads both spellings of RoPE ("rope_theta" + "rope_scaling", and "rope_parameters"), both of the
// dtype ("torch_dtype", "dtype"), eos_token_id as a number or a list. A field that is absent means
// what it means to transformers. Throws Error naming file and field for anything of a wrong type,
// impossible, or not supported (another architecture, activation or rope type).
ModelConfig read_model_config(FileSystem& fs, const std::string& path);
// generation_config.json, which decides where a generation ends: its eos_token_id takes the place
// of config.eos_tokens, also where it has none, as in transformers. How tokens are drawn and how
// many is not taken from it; what would choose, forbid or force tokens is refused by name.
void read_generation_config(FileSystem& fs, const std::string& path, ModelConfig& config);
std::string model_config_json(const ModelConfig& config);
std::string generation_config_json(const ModelConfig& config);

// The file that a folder with memory has so that transformers opens it: auto_map of its config.json
// names the classes that this one takes from the Python package (python/memlayers/hf/config.py).
constexpr const char* kModelingFile = "modeling_memlayers.py";
constexpr std::string_view kModelingText =
    "# Opens this folder in transformers; needs the package that wrote it: pip install memlayers\n"
    "from memlayers.hf import (  # noqa: F401\n"
    "    MemlayersConfig, MemlayersForCausalLM, MemlayersModel, MemlayersTokenizer)\n";

}  // namespace memlayers::io

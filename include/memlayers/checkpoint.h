// SPDX-License-Identifier: Apache-2.0
// A training checkpoint: a model folder (config.json, model.safetensors, tokenizer, pool/) with
// optimizer/ and trainer.json beside them, closed by MANIFEST.json. Written under a temporary name,
// synced, renamed: a folder named step-N is whole or not there. Nothing complete is ever
// overwritten.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memlayers {

// Complete checkpoints <run>/step-N, oldest first. A folder whose manifest is missing or does not
// hold is left out.
std::vector<std::string> list_checkpoints(const std::string& run_folder);

// The model folder that `path` means: itself where it holds a config.json, else the newest complete
// checkpoint of the run folder. Throws Error saying what was looked for.
std::string resolve_model_folder(const std::string& path);

}  // namespace memlayers

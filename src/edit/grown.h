// SPDX-License-Identifier: Apache-2.0
// What growth in memory and growth on the disk have in common.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/file_system.h"
#include "memlayers/grow.h"
#include "memlayers/llama.h"

namespace memlayers::edit {

// As the public one, over any file system.
GrownFolder grow_folder(io::FileSystem& fs, const std::string& folder, std::int64_t n_keys,
                        std::uint64_t seed, const std::optional<std::string>& out = {});

// The configuration with more sub-keys, which are not open yet.
ModelConfig grown(ModelConfig config, std::int64_t n_keys);

// Gives `grown` the weights of `model`; new sub-keys are drawn from `seed`.
void copy_weights(const Llama& model, Llama& grown, std::uint64_t seed);

}  // namespace memlayers::edit

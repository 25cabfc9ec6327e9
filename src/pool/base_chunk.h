// SPDX-License-Identifier: Apache-2.0
// Chunks that a store adds to its base or puts in another's place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/file_system.h"
#include "pool/state.h"

namespace memlayers::pool {

// chunk-<index>-<generation>.safetensors: files of a folder never share a name.
std::string base_chunk_name(std::size_t index, std::uint64_t generation);
// Writes a chunk through a temporary name; its name is durable once the folder is synced.
ChunkEntry write_base_chunk(io::FileSystem& fs, const std::string& folder, const std::string& name,
                            const PoolInfo& info, std::int64_t first,
                            std::span<const std::byte> rows);

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#include "pool/base_chunk.h"

#include "pool/chunks.h"

namespace memlayers::pool {

std::string base_chunk_name(std::size_t index, std::uint64_t generation) {
  return chunk_name("chunk", static_cast<std::int64_t>(index), generation);
}

ChunkEntry write_base_chunk(io::FileSystem& fs, const std::string& folder, const std::string& name,
                            const PoolInfo& info, std::int64_t first,
                            std::span<const std::byte> rows) {
  const std::string path = io::join(folder, name), temporary = path + ".tmp";
  if (fs.exists(temporary)) fs.unlink(temporary);
  write_chunk(fs, temporary, info, first, rows);
  rename_or_remove(fs, temporary, path);
  const Chunk chunk = open_chunk(fs, path);
  return {name, first, chunk.file.rows(), chunk.file.digest()};
}

}  // namespace memlayers::pool

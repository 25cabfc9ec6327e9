// SPDX-License-Identifier: Apache-2.0
// Tables of the pool's size (its values, what an optimizer keeps of its rows) as chunk files of
// whole rows in the order of their slots (pool/chunks.h): the files know nothing of the processes
// that wrote them, and any number of others reads them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/file_system.h"
#include "memlayers/pool.h"
#include "nn/whole_rows.h"

namespace memlayers::nn {

struct PoolTable {
  std::string stem;  // of its files
  // This process's part: [part().rows, part().width()] float32 or bfloat16, or the rows of a
  // quantized pool.
  at::Tensor rows;
  // Instead of `rows` what is written: lagging rows as they would be. Absent: rows.
  WholeRows::ReadPart read = {};
};

// Names of files, and which process of the memory group wrote each.
using WrittenFiles = std::vector<std::pair<std::string, int>>;

struct ChunkWriting {
  std::uint64_t generation = 0;
  int first_writer = 0;                           // has the first chunk, the next one the second
  std::optional<std::int64_t> rows_a_chunk = {};  // absent: as pool/chunks.h says
};

// Writes <folder>/<stem>-<i>-<generation>.safetensors and syncs them and the folder, which must
// exist. The chunks are dealt out over the processes of the memory group, which all call it
// together: each needs memory for about three chunks, and gives the others what they lack. Throws
// Error.
WrittenFiles write_table(io::FileSystem& fs, const std::string& folder, const MemoryPool& pool,
                         const PoolTable& table, const ChunkWriting& how);

struct ChunkReading {
  std::optional<std::uint64_t> generation = {};  // which all chunks must have; absent: any
  std::optional<std::int64_t> slots = {};        // that the table has; absent: all of the pool's
};

struct ReadTable {
  std::string pool;  // its id
  // What patches write besides rows, in the version that was read; null for nothing.
  std::shared_ptr<const SubKeys> sub_keys;
};

// Fills table.rows, or the first of them where the table has fewer. Each chunk is read and checked
// by one process of the group, which all call it together, and gives the others their part of it.
// Throws Error naming the file that is missing, damaged, of another table or another generation, or
// the rows that are not finite.
ReadTable read_table(io::FileSystem& fs, const std::string& folder, const MemoryPool& pool,
                     const PoolTable& table, const ChunkReading& how);

// The id of the pool whose table lies in `folder`.
std::string pool_id_of(io::FileSystem& fs, const std::string& folder, const std::string& stem);

// Throws Error naming the chunk where those of a table are not all of this generation. A pool that
// was edited has chunks of several (docs/store.md): its log answers for them.
void check_generation(io::FileSystem& fs, const std::string& folder, const std::string& stem,
                      std::uint64_t generation);

// What the chunks of such a table take on the disk, all processes' together.
std::uint64_t bytes_of_chunks(const MemoryPool& pool, const at::Tensor& rows);

}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
// A table of rows as immutable chunk files (docs/formats.md): valid safetensors files with tensors
// `rows` and `xxh3` (a checksum of each 64 KiB block of rows), rows starting on a page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "pool/finite.h"  // IWYU pragma: export
#include "pool/rows_file.h"

namespace memlayers::pool {

struct RowsView {
  const std::byte* data;  // contiguous rows
  std::int64_t rows, width;
  RowType type;
};

std::string new_pool_id();  // a random UUID
// <stem>-<index>-<generation>.safetensors
std::string chunk_name(std::string_view stem, std::int64_t index, std::uint64_t generation);

// Before rows are written: throws Error where the disk has no room for chunks of so many, and
// `besides` bytes more.
void ask_for_rows(io::FileSystem& fs, const std::string& folder, std::int64_t rows,
                  std::int64_t width, RowType type, std::uint64_t besides = 0);

// Writes <folder>/<stem>-<i>-<generation>.safetensors, at most 64 MiB of rows each, and syncs them.
// Needs memory for one chunk at most; rows in a mapped file are read ahead of their writing.
void write_chunks(io::FileSystem& fs, const std::string& folder, std::string_view stem,
                  const RowsView& rows, const std::string& pool_id, std::uint64_t generation);

// The same for rows that are not in memory as they are to be written: read(first, out) copies rows
// from `first` on, as many as fit into out, which holds a chunk at most.
struct RowsSource {
  std::function<void(std::int64_t first, std::span<std::byte> out)> read;
  std::int64_t rows, width;
  RowType type;
};
void write_chunks(io::FileSystem& fs, const std::string& folder, std::string_view stem,
                  const RowsSource& source, const std::string& pool_id, std::uint64_t generation);

// One chunk: `rows` are rows [first, first + their number) of a table of pool.rows.
std::int64_t rows_of_a_chunk(std::int64_t width, RowType type);
void write_chunk(io::FileSystem& fs, const std::string& path, const PoolInfo& pool,
                 std::int64_t first, std::span<const std::byte> rows);
struct Chunk {
  RowsFile file;
  std::int64_t first;
};
Chunk open_chunk(io::FileSystem& fs, const std::string& path);

// The chunks of one table. Everything but the rows' own checksums is checked by open(); a missing,
// doubled, cut or swapped chunk is an Error that names it, and so is a folder that a store has
// edited (docs/store.md): its chunks are not all of it.
class ChunkedRows {
 public:
  static ChunkedRows open(io::FileSystem& fs, const std::string& folder, std::string_view stem);
  const PoolInfo& info() const { return info_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }  // by first row
  std::size_t num_chunks() const { return chunks_.size(); }
  // Copies rows [first, first + out.size() / row bytes), contiguous, after checking the blocks they
  // lie in. Callable from several threads. Throws Error naming file and offset of an altered block.
  void read(std::int64_t first, std::span<std::byte> out) const;
  // Rows [first, first + count) were read and are not needed again soon: memory that their files
  // take up in this process is given back.
  void release(std::int64_t first, std::int64_t count) const;

 private:
  // f(chunk, begin, end) for the chunks' own rows that lie in [first, first + count).
  template <class F>
  void for_each_part(std::int64_t first, std::int64_t count, const F& f) const;

  PoolInfo info_;
  std::int64_t stride_ = 0;
  std::vector<Chunk> chunks_;
};

// Throws Error naming the first chunk that is of another generation: what was written together has
// one.
void check_generation(const ChunkedRows& rows, std::uint64_t generation);

// XXH3-128 in hex of the logical content: rows as read, whatever their chunks.
std::string digest(const RowsView& rows);
std::string digest(const RowsSource& source);
std::string digest(const ChunkedRows& rows);

}  // namespace memlayers::pool

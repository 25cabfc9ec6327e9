// SPDX-License-Identifier: Apache-2.0
// What chunks and segments have in common: an immutable safetensors file with tensors `rows` and
// `xxh3` (a checksum of each 64 KiB block of rows), rows starting on a page, and metadata that have
// a checksum of their own (docs/formats.md).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "memlayers/config.h"
#include "pool/mapped_region.h"

namespace memlayers::pool {

struct PoolInfo {
  std::string id;
  std::int64_t rows = 0, width = 0;
  RowType type = RowType::kFloat32;
  std::uint64_t generation = 0;
};

// From the start of one row to that of the next: a multiple of 64 bytes and, where that wastes at
// most a quarter, a divisor or multiple of a page, so that a row costs at most one fault.
std::int64_t stride_bytes(std::int64_t width, RowType type);

// The type of the tensor `rows`.
io::ElementType element_type(RowType type);

// Writes such a file and syncs it. `rows` are contiguous rows as `pool.type` and `pool.width` say,
// pool.rows is written as total_rows. `metadata` and `tensors` are what the format adds.
void write_rows_file(io::FileSystem& fs, const std::string& path, const std::string& format,
                     const PoolInfo& pool, std::span<const std::byte> rows,
                     std::map<std::string, std::string> metadata,
                     const std::vector<io::TensorToWrite>& tensors = {});

class RowsFile {
 public:
  // Everything but the rows' own checksums is checked; throws Error naming the file and the field.
  static RowsFile open(io::FileSystem& fs, const std::string& path, const std::string& format);

  const std::string& path() const { return file_.path(); }
  const io::SafetensorsFile& file() const { return file_; }
  const PoolInfo& pool() const { return pool_; }  // of which this file holds a part
  std::int64_t rows() const { return rows_; }     // in this file
  std::int64_t stride() const { return stride_; }
  std::string digest() const;  // of all rows, by their checksums
  std::int64_t number(const std::string& field) const;
  std::string text(const std::string& field) const;

  // The address of a row. Its bytes are as the file has them: check first.
  const std::byte* row(std::int64_t row) const { return data_.data() + row * stride_; }
  // Reads the blocks of rows [first, first + count) and throws Error naming file and offset of one
  // whose checksum does not hold. Callable from several threads.
  void check(std::int64_t first, std::int64_t count) const;
  // The same, for blocks that no earlier call found good.
  void check_once(std::int64_t first, std::int64_t count) const;
  // The rows are not needed in memory for now.
  void release(std::int64_t first, std::int64_t count) const;
  // Reads and checks all rows, and keeps them in memory from now on.
  void load();

 private:
  void check_block(std::int64_t block) const;

  io::SafetensorsFile file_;
  PoolInfo pool_;
  std::int64_t rows_ = 0, stride_ = 0;
  std::span<const std::byte> data_;
  std::vector<std::uint64_t> checksums_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> is_good_;  // a bit for each block found good
  std::unique_ptr<MappedRegion> memory_;                   // after load()
};

// Gives a complete file its name; where that fails, removes it. The name is durable once the folder
// is synced.
void rename_or_remove(io::FileSystem& fs, const std::string& temporary, const std::string& path);

}  // namespace memlayers::pool

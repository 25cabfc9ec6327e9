// SPDX-License-Identifier: Apache-2.0
// What chunks and segments have in common: an immutable safetensors file with tensors `rows` and
// `xxh3` (a checksum of each 64 KiB block of rows), rows starting on a page, and metadata that have
// a checksum of their own (docs/formats.md).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_read.h"
#include "io/safetensors.h"
#include "memlayers/store.h"
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

// Writes such a file and syncs it; throws Error for a row that is not finite. `rows` are contiguous
// rows as `pool.type` and `pool.width` say, pool.rows is written as total_rows. `metadata` and
// `tensors` are what the format adds.
void write_rows_file(io::FileSystem& fs, const std::string& path, const std::string& format,
                     const PoolInfo& pool, std::span<const std::byte> rows,
                     std::map<std::string, std::string> metadata,
                     const std::vector<io::TensorToWrite>& tensors = {});

class RowsFile {
 public:
  // Everything but the rows' own checksums is checked; throws Error naming the file and the field.
  // `feature`: of the format's, the one that this reader knows.
  static RowsFile open(io::FileSystem& fs, const std::string& path, const std::string& format,
                       const std::string& feature = "0");

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
  // whose checksum does not hold, or the row of one that is not finite. Callable from several
  // threads.
  void check(std::int64_t first, std::int64_t count) const;
  // The same, for blocks that no earlier call found good.
  void check_once(std::int64_t first, std::int64_t count) const;
  // The rows are not needed in memory for now.
  void release(std::int64_t first, std::int64_t count) const;
  // How rows get into memory from now on; mapped before. kMemory: all are read and checked now.
  void set_access(io::FileSystem& fs, RowAccess access);

 private:
  // The file that blocks are read from when they are first touched.
  struct Source {
    std::unique_ptr<io::File> file;
    std::uint64_t offset;  // of the rows
    std::mutex mutex;      // one block at a time gets its bytes
  };
  std::span<const std::byte> block_bytes(std::int64_t block) const;
  void check_block(std::int64_t block) const;
  std::string row_text(std::int64_t row) const;
  void read_block(std::int64_t block) const;

  io::SafetensorsFile file_;
  PoolInfo pool_;
  std::int64_t rows_ = 0, stride_ = 0;
  std::span<const std::byte> data_;
  std::vector<std::uint64_t> checksums_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> is_good_;  // a bit for each block found good
  std::unique_ptr<MappedRegion> memory_;                   // null: rows are mapped
  std::unique_ptr<Source> source_;                         // where `memory_` is filled bit by bit
};

// Gives a complete file its name; where that fails, removes it. The name is durable once the folder
// is synced.
void rename_or_remove(io::FileSystem& fs, const std::string& temporary, const std::string& path);

// Copies the rows row_of(0), row_of(1), ... of `row_bytes` each, one behind the other. They may be
// mapped: throws Error where the disk does not give them.
template <class F>
void copy_rows(std::int64_t count, std::int64_t row_bytes, std::byte* out, const F& row_of) {
  constexpr std::int64_t kAtOnce = 64;  // finding a row may throw, copying it may not
  std::array<const std::byte*, kAtOnce> rows;
  const auto size = static_cast<std::size_t>(row_bytes);
  for (std::int64_t first = 0; first < count; first += kAtOnce) {
    const auto some = static_cast<std::size_t>(std::min(kAtOnce, count - first));
    for (std::size_t i = 0; i < some; ++i) rows[i] = row_of(first + static_cast<std::int64_t>(i));
    std::byte* const to = out + first * row_bytes;
    io::read_mapped([&] {
      for (std::size_t i = 0; i < some; ++i) std::memcpy(to + i * size, rows[i], size);
    });
  }
}

}  // namespace memlayers::pool

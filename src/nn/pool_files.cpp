// SPDX-License-Identifier: Apache-2.0
#include "nn/pool_files.h"

#include <algorithm>

#include "dist/collectives.h"
#include "memlayers/error.h"
#include "memlayers/store.h"
#include "nn/pool_tables.h"
#include "nn/table.h"
#include "ops/parallel.h"
#include "pool/chunks.h"
#include "pool/recovery.h"
#include "pool/row_format.h"
#include "pool/store_parts.h"

namespace memlayers::nn {
namespace {

// While the processes wait for one that writes to a disk, or reads from one.
class DiskWait {
 public:
  explicit DiskWait(const MemoryPool& pool) : group_(pool->group()) {
    if (group_ == nullptr) return;
    before_ = group_->deadline();
    group_->set_deadline(std::max(before_, Communicator::Seconds(600)));
  }
  ~DiskWait() {
    if (group_ != nullptr) group_->set_deadline(before_);
  }
  DiskWait(const DiskWait&) = delete;
  DiskWait& operator=(const DiskWait&) = delete;

 private:
  Communicator* group_;
  Communicator::Seconds before_{};
};

RowType type_of(const MemoryPool& pool, const at::Tensor& rows) {
  if (rows.scalar_type() == at::kFloat) return RowType::kFloat32;
  return rows.scalar_type() == at::kBFloat16 ? RowType::kBFloat16 : pool->options().row_dtype;
}

std::byte* data_of(const at::Tensor& rows) {
  return static_cast<std::byte*>(rows.mutable_data_ptr());
}

std::int64_t part_row_bytes(const at::Tensor& rows) { return rows.size(1) * rows.element_size(); }

WholeRows::ReadPart reader_of(const PoolTable& table) {
  if (table.read) return table.read;
  const at::Tensor rows = table.rows;
  return [rows](std::int64_t first, std::span<std::byte> out) {
    const auto at = static_cast<std::size_t>(first * part_row_bytes(rows));
    std::ranges::copy(bytes_of(rows).subspan(at, out.size()), out.begin());
  };
}

// The chunks [begin, begin + group) with those that have them, process by process.
template <class RangeOf>
std::vector<WholeRows::Range> dealt(std::int64_t begin, std::int64_t chunks, int processes,
                                    int first_process, const RangeOf& range_of) {
  std::vector<WholeRows::Range> ranges(static_cast<std::size_t>(processes));
  for (std::int64_t i = begin; i < std::min(chunks, begin + processes); ++i) {
    ranges[static_cast<std::size_t>((first_process + i) % processes)] = range_of(i);
  }
  return ranges;
}

void check_rows(const std::string& folder, const PoolTable& table, std::span<const std::byte> rows,
                RowType type, std::int64_t width, std::int64_t first) {
  if (pool::all_finite(rows, type, width)) return;
  const auto count = static_cast<std::int64_t>(rows.size()) / pool::row_format(type, width).bytes();
  throw Error(folder + ": " + table.stem +
              ": expected finite numbers, got NaN or infinity in rows " + std::to_string(first) +
              " to " + std::to_string(first + count));
}

// The rows of a table, as its files and, for the pool's values, the patches over them say.
struct Source {
  pool::PoolInfo info;
  std::function<void(std::int64_t first, std::span<std::byte> out)> read;
  std::function<void(std::int64_t first, std::int64_t count)> release;
  std::vector<WholeRows::Range> chunks;  // what one process reads at a time
  std::shared_ptr<const SubKeys> sub_keys = {};
};

Source source_of(std::shared_ptr<const pool::ChunkedRows> rows) {
  Source source{rows->info(),
                [rows](std::int64_t first, std::span<std::byte> out) { rows->read(first, out); },
                [rows](std::int64_t first, std::int64_t count) { rows->release(first, count); },
                {}};
  for (const pool::Chunk& chunk : rows->chunks()) {
    source.chunks.push_back({chunk.first, chunk.file.rows()});
  }
  return source;
}

// The first `slots` rows: after a growth that was interrupted there are more.
Source source_of(const Snapshot& rows, std::int64_t slots) {
  Source source{{rows.pool_id(), std::min(slots, rows.rows()), rows.width(), rows.row_dtype(), 0},
                [rows](std::int64_t first, std::span<std::byte> out) { rows.read(first, out); },
                [rows](std::int64_t first, std::int64_t count) { rows.release(first, count); },
                {}};
  source.sub_keys = rows.sub_keys();
  const std::int64_t at_once = pool::rows_of_a_chunk(rows.width(), rows.row_dtype());
  for (std::int64_t first = 0; first < source.info.rows; first += at_once) {
    source.chunks.push_back({first, std::min(at_once, source.info.rows - first)});
  }
  return source;
}

bool was_edited(io::FileSystem& fs, const std::string& folder) {
  return fs.exists(io::join(folder, pool::kCurrent));
}

Source open_table(io::FileSystem& fs, const std::string& folder, const MemoryPool& pool,
                  const PoolTable& table, const ChunkReading& how) {
  Source source;
  const std::int64_t slots = how.slots.value_or(pool->slots());
  if (was_edited(fs, folder)) {  // no longer of one generation
    source = source_of(pool::open_reader(fs, folder).snapshot(), slots);
  } else {
    const auto stored =
        std::make_shared<const pool::ChunkedRows>(pool::ChunkedRows::open(fs, folder, table.stem));
    if (how.generation) pool::check_generation(*stored, *how.generation);
    source = source_of(stored);
  }
  const pool::PoolInfo& info = source.info;
  const RowType type = type_of(pool, table.rows);
  if (info.rows == slots && info.width == pool->width() && info.type == type) return source;
  throw Error(folder + ": expected " + std::to_string(slots) + " rows of " +
              std::to_string(pool->width()) + " " + row_type_name(type) + " by config.json, got " +
              std::to_string(info.rows) + " of " + std::to_string(info.width) + " " +
              row_type_name(info.type));
}

// One process, all of whose threads read.
void read_alone(const Source& stored, const std::string& folder, const MemoryPool& pool,
                const PoolTable& table) {
  const pool::PoolInfo& info = stored.info;
  const std::int64_t row_bytes = pool::row_format(info.type, info.width).bytes();
  // In pieces, each of which leaves memory before the next: what is held is the table.
  const std::int64_t at_once = std::max<std::int64_t>(1, (4 << 20) / row_bytes);
  const std::int64_t pieces = (info.rows + at_once - 1) / at_once;
  std::byte* data = data_of(table.rows);
  ops::parallel_ranges(pieces, at_once * row_bytes, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t piece = first; piece < last; ++piece) {
      const std::int64_t begin = piece * at_once, end = std::min(info.rows, begin + at_once);
      const std::span<std::byte> rows{data + begin * row_bytes,
                                      static_cast<std::size_t>((end - begin) * row_bytes)};
      stored.read(begin, rows);
      stored.release(begin, end - begin);
      pool->tables().write_back();
      check_rows(folder, table, rows, info.type, info.width, begin);
    }
  });
}

void read_together(const Source& stored, const std::string& folder, const MemoryPool& pool,
                   const PoolTable& table) {
  const DiskWait wait(pool);
  const pool::PoolInfo& info = stored.info;
  const WholeRows whole(pool, table.rows.element_size(), /*is_one_number=*/false);
  const auto chunks = static_cast<std::int64_t>(stored.chunks.size());
  std::vector<std::byte> buffer;
  for (std::int64_t begin = 0; begin < chunks; begin += whole.processes()) {
    const auto given = dealt(begin, chunks, whole.processes(), 0, [&](std::int64_t i) {
      return stored.chunks[static_cast<std::size_t>(i)];
    });
    const WholeRows::Range own = given[static_cast<std::size_t>(whole.rank())];
    buffer.resize(static_cast<std::size_t>(own.count * whole.row_bytes()));
    if (own.count > 0) {
      stored.read(own.first, buffer);
      stored.release(own.first, own.count);
      check_rows(folder, table, buffer, info.type, info.width, own.first);
    }
    whole.distribute(given, buffer, [&](std::int64_t first, std::span<const std::byte> rows) {
      std::ranges::copy(rows, data_of(table.rows) + first * part_row_bytes(table.rows));
    });
    pool->tables().write_back();
  }
}

}  // namespace

std::uint64_t bytes_of_chunks(const MemoryPool& pool, const at::Tensor& rows) {
  return static_cast<std::uint64_t>(pool->slots() *
                                    pool::stride_bytes(pool->width(), type_of(pool, rows)));
}

WrittenFiles write_table(io::FileSystem& fs, const std::string& folder, const MemoryPool& pool,
                         const PoolTable& table, const ChunkWriting& how) {
  const RowType type = type_of(pool, table.rows);
  const std::int64_t slots = pool->slots(), width = pool->width();
  const std::int64_t at_once = how.rows_a_chunk.value_or(pool::rows_of_a_chunk(width, type));
  const std::int64_t chunks = (slots + at_once - 1) / at_once;
  const WholeRows whole(pool, table.rows.element_size(), /*is_one_number=*/false);
  WrittenFiles files;
  for (std::int64_t i = 0; i < chunks; ++i) {
    files.emplace_back(pool::chunk_name(table.stem, i, how.generation),
                       static_cast<int>((how.first_writer + i) % whole.processes()));
  }
  if (!pool->is_sharded() && !table.read && !how.rows_a_chunk) {  // as they lie there
    pool::write_chunks(fs, folder, table.stem,
                       pool::RowsView{bytes_of(table.rows).data(), slots, width, type}, pool->id,
                       how.generation);
    fs.sync_folder(folder);
    return files;
  }
  const DiskWait wait(pool);
  const pool::PoolInfo info{
      pool->is_sharded() ? dist::broadcast(*pool->group(), pool->id) : pool->id, slots, width, type,
      how.generation};
  const std::int64_t row_bytes = pool::row_format(type, width).bytes();
  const WholeRows::ReadPart read = reader_of(table);
  std::vector<std::byte> buffer;
  for (std::int64_t begin = 0; begin < chunks; begin += whole.processes()) {
    const auto wanted =
        dealt(begin, chunks, whole.processes(), how.first_writer, [&](std::int64_t i) {
          return WholeRows::Range{i * at_once, std::min(at_once, slots - i * at_once)};
        });
    const WholeRows::Range own = wanted[static_cast<std::size_t>(whole.rank())];
    buffer.resize(static_cast<std::size_t>(own.count * row_bytes));
    whole.collect(wanted, read, buffer);
    if (own.count == 0) continue;
    const auto& [name, writer] = files[static_cast<std::size_t>(own.first / at_once)];
    pool::write_chunk(fs, io::join(folder, name), info, own.first, buffer);
  }
  fs.sync_folder(folder);
  return files;
}

std::string pool_id_of(io::FileSystem& fs, const std::string& folder, const std::string& stem) {
  if (was_edited(fs, folder)) return pool::open_reader(fs, folder).snapshot().pool_id();
  return pool::ChunkedRows::open(fs, folder, stem).info().id;
}

void check_generation(io::FileSystem& fs, const std::string& folder, const std::string& stem,
                      std::uint64_t generation) {
  if (was_edited(fs, folder)) return;
  pool::check_generation(pool::ChunkedRows::open(fs, folder, stem), generation);
}

ReadTable read_table(io::FileSystem& fs, const std::string& folder, const MemoryPool& pool,
                     const PoolTable& table, const ChunkReading& how) {
  const Source stored = open_table(fs, folder, pool, table, how);
  if (pool->is_sharded()) {
    read_together(stored, folder, pool, table);
  } else {
    read_alone(stored, folder, pool, table);
  }
  return {stored.info.id, stored.sub_keys};
}

}  // namespace memlayers::nn

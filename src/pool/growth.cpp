// SPDX-License-Identifier: Apache-2.0
#include "pool/growth.h"

#include <algorithm>
#include <vector>

#include "memlayers/error.h"
#include "pool/base_chunk.h"
#include "pool/chunks.h"
#include "pool/finite.h"
#include "pool/recovery.h"
#include "pool/row_format.h"

namespace memlayers::pool {
namespace {

// Writes the last rows of a pool of info.rows as chunks, the first one being the base's chunk
// `index`. Their names, which `names` gets as they are written, are durable once the folder is
// synced.
std::vector<ChunkEntry> write_added(io::FileSystem& fs, const std::string& folder,
                                    const PoolInfo& info, std::size_t index, const AddedRows& added,
                                    std::vector<std::string>& names) {
  const std::int64_t row_bytes = row_format(info.type, info.width).bytes();
  const std::int64_t at_once = rows_of_a_chunk(info.width, info.type);
  std::vector<ChunkEntry> chunks;
  std::vector<std::byte> buffer;
  ask_for_rows(fs, folder, added.count, info.width, info.type);
  for (std::int64_t first = info.rows - added.count; first < info.rows; first += at_once) {
    buffer.resize(static_cast<std::size_t>(std::min(at_once, info.rows - first) * row_bytes));
    added.read(first, buffer);
    if (!all_finite(buffer, info.type, info.width)) {
      throw Error("grow: expected finite numbers, got NaN or infinity in the rows from slot " +
                  std::to_string(first));
    }
    names.push_back(base_chunk_name(index + chunks.size(), info.generation));
    chunks.push_back(write_base_chunk(fs, folder, names.back(), info, first, buffer));
  }
  return chunks;
}

}  // namespace

Committed grow(StoreParts& store, const AddedRows& added) {
  const std::int64_t rows = added.count;
  const std::lock_guard one_at_a_time(store.maintenance);
  const auto now = store.commits.published();
  PoolInfo info = now->state().pool;
  if (rows < 1 ||
      rows > (std::int64_t{1} << 60) / stride_bytes(info.width, info.type) - info.rows) {
    throw Error("grow: expected a number of rows >= 1 and below 2^60 bytes in all, got " +
                std::to_string(rows));
  }
  store.commits.ensure_log();
  info.rows += rows;
  std::vector<std::string> names;
  try {
    const auto chunks =
        write_added(store.fs, store.folder, info, now->state().base.size(), added, names);
    store.fs.sync_folder(store.folder);
    return store.commits.commit([&](const Version&) {
      return std::optional(Draft{RecordType::kGrow, grow_payload(info.rows, chunks)});
    });
  } catch (...) {
    store.commits.give_up(names);
    throw;
  }
}

void make_grown_copy(
    io::FileSystem& fs, const std::string& from, const std::string& to, const AddedRows& added,
    const std::function<void(const std::string& from, const std::string& to)>& place) {
  Recovered recovered = recover(fs, from, io::OpenMode::kRead, /*to_point_in_time=*/false);
  State& state = recovered.state;
  for (const std::string& name : state.files()) place(io::join(from, name), io::join(to, name));
  state.pool.rows += added.count;
  std::vector<std::string> names;
  for (ChunkEntry& chunk : write_added(fs, to, state.pool, state.base.size(), added, names)) {
    state.base.push_back(std::move(chunk));
  }
  ++state.lsn;  // as by a record of growth: readers of the old log see another version
  const std::string log = log_name(log_number(recovered.log) + 1);
  LogWriter::create(fs, io::join(to, log), {RecordType::kState, state.lsn, state_payload(state)},
                    StoreOptions().log_step_bytes);
  fs.sync_folder(to);
  write_current(fs, to, log);
}

}  // namespace memlayers::pool

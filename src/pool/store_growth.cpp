// SPDX-License-Identifier: Apache-2.0
// What changes the base of a store: growth and compaction. New chunks are written aside, one record
// in the log puts them in place.
#include <algorithm>
#include <map>

#include "pool/chunks.h"
#include "pool/grown_copy.h"
#include "pool/recovery.h"
#include "pool/row_format.h"
#include "pool/store_impl.h"
#include "pool/sub_keys.h"

namespace memlayers {
namespace {

using pool::RecordType;

// <n> in chunk-<i>-<n>.safetensors: files of a folder never share a name.
std::string chunk_name(std::size_t index, std::uint64_t generation) {
  return pool::chunk_name("chunk", static_cast<std::int64_t>(index), generation);
}

// The bottom and the kept patches.
std::vector<pool::PatchPointer> kept_layers(const pool::State& state) {
  std::vector<pool::PatchPointer> layers = state.layers();
  layers.resize(layers.size() - state.stack.size() + state.kept);
  return layers;
}

SubKeys kept_sub_keys(const pool::State& state) {
  std::vector<const SubKeys*> all;
  const std::vector<pool::PatchPointer> layers = kept_layers(state);
  for (const pool::PatchPointer& layer : layers) all.push_back(&layer->overlay->sub_keys());
  return pool::together(all);
}

// What they make of rows.
std::map<std::int64_t, pool::RowPlace> kept_rows(const pool::State& state) {
  std::map<std::int64_t, pool::RowPlace> kept;
  for (const pool::PatchPointer& layer : kept_layers(state)) {
    const auto slots = layer->overlay->slots();
    for (std::uint32_t row = 0; row < slots.size(); ++row) {
      kept[slots[row]] = {layer->overlay.get(), row};
    }
    for (const std::int64_t slot : layer->overlay->erased()) {
      kept[slot] = {layer->overlay.get(), pool::Overlay::kErased};
    }
  }
  return kept;
}

// Writes a chunk through a temporary name; its name is durable once the folder is synced.
pool::ChunkEntry write_chunk(io::FileSystem& fs, const std::string& folder, const std::string& name,
                             const pool::PoolInfo& info, std::int64_t first,
                             std::span<const std::byte> rows) {
  const std::string path = io::join(folder, name), temporary = path + ".tmp";
  if (fs.exists(temporary)) fs.unlink(temporary);
  pool::write_chunk(fs, temporary, info, first, rows);
  pool::rename_or_remove(fs, temporary, path);
  const pool::Chunk chunk = pool::open_chunk(fs, path);
  return {name, first, chunk.file.rows(), chunk.file.digest()};
}

// Writes the last rows of a pool of info.rows as chunks, the first one being the base's chunk
// `index`. Their names, which `names` gets as they are written, are durable once the folder is
// synced.
std::vector<pool::ChunkEntry> write_added(io::FileSystem& fs, const std::string& folder,
                                          const pool::PoolInfo& info, std::size_t index,
                                          const pool::AddedRows& added,
                                          std::vector<std::string>& names) {
  const std::int64_t row_bytes = pool::row_format(info.type, info.width).bytes();
  const std::int64_t at_once = pool::rows_of_a_chunk(info.width, info.type);
  std::vector<pool::ChunkEntry> chunks;
  std::vector<std::byte> buffer;
  for (std::int64_t first = info.rows - added.count; first < info.rows; first += at_once) {
    buffer.resize(static_cast<std::size_t>(std::min(at_once, info.rows - first) * row_bytes));
    added.read(first, buffer);
    if (!pool::all_finite(buffer, info.type, info.width)) {
      throw Error("grow: expected finite numbers, got NaN or infinity in the rows from slot " +
                  std::to_string(first));
    }
    names.push_back(chunk_name(index + chunks.size(), info.generation));
    chunks.push_back(write_chunk(fs, folder, names.back(), info, first, buffer));
  }
  return chunks;
}

}  // namespace

Committed Store::grow(
    std::int64_t rows,
    const std::function<void(std::int64_t first, std::span<std::byte> out)>& read) {
  Impl& store = *impl_;
  const std::lock_guard one_at_a_time(store.maintenance_);
  const auto now = store.published();
  pool::PoolInfo info = now->state().pool;
  if (rows < 1 ||
      rows > (std::int64_t{1} << 60) / pool::stride_bytes(info.width, info.type) - info.rows) {
    throw Error("grow: expected a number of rows >= 1 and below 2^60 bytes in all, got " +
                std::to_string(rows));
  }
  store.ensure_log();
  info.rows += rows;
  std::vector<std::string> names;
  try {
    const auto chunks =
        write_added(store.fs_, store.folder_, info, now->state().base.size(), {rows, read}, names);
    store.fs_.sync_folder(store.folder_);
    return store.commit([&](const pool::Version&) {
      return std::optional(Impl::Draft{RecordType::kGrow, pool::grow_payload(info.rows, chunks)});
    });
  } catch (...) {
    store.give_up(names);
    throw;
  }
}

void pool::make_grown_copy(
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

bool Store::Impl::rewrite_chunk(std::size_t index, double part, Kept& kept) {
  const auto now = published();
  const pool::Chunk& chunk = *now->chunks()[index];
  const pool::PoolInfo& info = now->state().pool;
  const auto begin = kept.lower_bound(chunk.first);
  const auto end = kept.lower_bound(chunk.first + chunk.file.rows());
  // An erased slot stays over the base: that is how it is known to be free.
  const auto is_row = [](const auto& row) { return row.second.row != pool::Overlay::kErased; };
  const auto count = std::count_if(begin, end, is_row);
  if (count == 0 || static_cast<double>(count) <= part * static_cast<double>(chunk.file.rows())) {
    return false;
  }
  std::vector<std::byte> rows(static_cast<std::size_t>(chunk.file.rows() * now->row_bytes()));
  chunk.file.check(0, chunk.file.rows());
  pool::copy_rows(chunk.file.rows(), now->row_bytes(), rows.data(), [&](std::int64_t row) {
    const auto found = kept.find(chunk.first + row);
    return found != kept.end() && is_row(*found) ? found->second.overlay->row(found->second.row)
                                                 : chunk.file.row(row);
  });
  const std::string old = now->state().base[index].name;
  pool::PoolInfo next = info;
  next.generation = chunk.file.pool().generation + 1;
  const std::string name = chunk_name(index, next.generation);
  try {
    const pool::ChunkEntry entry = write_chunk(fs_, folder_, name, next, chunk.first, rows);
    fs_.sync_folder(folder_);
    commit([&](const pool::Version&) {
      return std::optional(Draft{RecordType::kSwap, pool::swap_payload(entry)});
    });
  } catch (...) {
    give_up({name});
    throw;
  }
  remove(old);  // snapshots that read from it have it mapped
  for (auto row = begin; row != end;) row = is_row(*row) ? kept.erase(row) : std::next(row);
  return true;
}

Committed Store::compact(double part) {
  Impl& store = *impl_;
  const std::lock_guard one_at_a_time(store.maintenance_);
  const auto now = store.published();
  const pool::State& state = now->state();
  std::vector<std::string> ids;
  for (std::size_t i = 0; i < state.kept; ++i) ids.push_back(state.stack[i]->id);
  Impl::Kept kept = kept_rows(state);
  bool is_rewritten = false;
  for (std::size_t index = 0; index < state.base.size(); ++index) {
    is_rewritten |= store.rewrite_chunk(index, part, kept);
  }
  if (ids.empty() && state.undone.empty() && !is_rewritten) return {state.lsn, true, {}};

  pool::PatchPointer bottom;
  const SubKeys sub_keys = kept_sub_keys(state);  // they have no base in the pool to go into
  if (!kept.empty() || !sub_keys.places.empty()) {
    std::vector<std::int64_t> slots, erased;
    std::vector<pool::RowPlace> places;
    std::vector<std::byte> rows;
    for (const auto& [slot, place] : kept) {
      if (place.row == pool::Overlay::kErased) {
        erased.push_back(slot);
        continue;
      }
      slots.push_back(slot);
      places.push_back(place);
    }
    rows.resize(slots.size() * static_cast<std::size_t>(now->row_bytes()));
    pool::copy_rows(static_cast<std::int64_t>(slots.size()), now->row_bytes(), rows.data(),
                    [&](std::int64_t i) {
                      const pool::RowPlace& place = places[static_cast<std::size_t>(i)];
                      return place.overlay->row(place.row);
                    });
    const pool::Writes writes{slots, rows, erased, sub_keys};
    bottom = std::make_shared<pool::PatchEntry>(pool::entry_of("", writes));
    bottom->segment = "seg-" + pool::new_pool_id() + ".safetensors";
    try {
      pool::write_segment(store.fs_, store.path(bottom->segment), state.pool, writes,
                          bottom->content);
    } catch (...) {
      store.give_up({bottom->segment, bottom->segment + ".tmp"});
      throw;
    }
  }
  Committed committed;
  try {
    committed = store.commit([&](const pool::Version&) {
      return std::optional(Impl::Draft{RecordType::kFold, pool::fold_payload(ids, bottom)});
    });
  } catch (...) {
    if (bottom != nullptr) store.give_up({bottom->segment});
    throw;
  }
  store.remove_unneeded(state.files());
  return committed;
}

}  // namespace memlayers

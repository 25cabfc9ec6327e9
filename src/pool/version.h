// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "pool/chunks.h"
#include "pool/override_map.h"
#include "pool/state.h"

namespace memlayers::pool {

// Opens what states name, each file once while anybody uses it.
class RowsLoader {
 public:
  RowsLoader(io::FileSystem& fs, std::string folder, const StoreOptions& options)
      : fs_(fs), folder_(std::move(folder)), access_(options.access), sub_keys_(options.sub_keys) {}
  // Throws NotFound for a file that is not there.
  std::shared_ptr<const Chunk> chunk(const ChunkEntry& entry, const PoolInfo& pool);
  void load(PatchEntry& patch, const PoolInfo& pool);  // sets its overlay, if it has none
  // The sub-keys that patches make together; null for none. Throws Error for some that the model
  // does not have.
  std::shared_ptr<const SubKeys> sub_keys(const std::vector<PatchPointer>& patches) const;
  void forget_group() { group_.clear(), group_path_.clear(); }

 private:
  io::FileSystem& fs_;
  std::string folder_;
  RowAccess access_;
  std::optional<SubKeyGrid> sub_keys_;  // the model's, where known
  std::map<std::string, std::weak_ptr<const Chunk>> chunks_;
  // The group that was read last: the log's patches come in its order.
  std::string group_path_;
  std::uint64_t group_offset_ = 0;
  std::vector<Record> group_;
};

// A state with all that is needed to read its rows: what a Snapshot shows. Immutable.
class Version {
 public:
  // As after a recovery: everything is built anew.
  static std::shared_ptr<const Version> build(State state, RowsLoader& loader);
  // After one more record; costs what the record changes. `log_path` as in advance().
  std::shared_ptr<const Version> next(const Record& record, const std::string& log_path,
                                      RowsLoader& loader) const;

  // As if these patches of the stack were rolled back; others stay as they are.
  std::shared_ptr<const Version> without(const std::vector<PatchPointer>& patches) const;
  // Whether the row is that of `other`, told by where it lies. Requires a slot of both.
  bool has_row_of(const Version& other, std::int64_t slot) const;

  const State& state() const { return state_; }
  std::int64_t row_bytes() const { return row_bytes_; }
  const std::byte* row(std::int64_t slot) const {  // requires a slot of the pool
    const RowPlace* place = overrides_.find(slot);
    return place == nullptr ? base_row(slot) : place->overlay->row(place->row);
  }
  const RowPlace* place(std::int64_t slot) const { return overrides_.find(slot); }
  std::int64_t overridden() const { return overrides_.size(); }
  const std::shared_ptr<const SubKeys>& sub_keys() const { return sub_keys_; }
  // The topmost patch of the stack that writes this sub-key; or null.
  PatchPointer writer_of(const SubKeyPlace& place) const;
  // f(chunk, begin, end) for the chunks' own rows that lie in [first, first + count).
  template <class F>
  void for_each_part(std::int64_t first, std::int64_t count, const F& f) const {
    for (std::size_t i = count > 0 ? chunk_of(first) : chunks_.size(); count > 0; ++i) {
      const std::int64_t begin = first - chunks_[i]->first;
      const std::int64_t end = begin + std::min(count, chunks_[i]->file.rows() - begin);
      f(*chunks_[i], begin, end);
      first += end - begin;
      count -= end - begin;
    }
  }
  const std::vector<std::shared_ptr<const Chunk>>& chunks() const { return chunks_; }
  // Whether the slot's row is zero because it was erased.
  bool is_free(std::int64_t slot) const {
    const RowPlace* place = overrides_.find(slot);
    return place != nullptr && place->row == Overlay::kErased;
  }

 private:
  Version() = default;
  std::size_t chunk_of(std::int64_t slot) const {
    // No chunk has more rows, so the slot's is the one guessed or lies behind it; not far, as all
    // are full but for the last one before each growth.
    auto chunk = static_cast<std::size_t>(slot / rows_a_chunk_);
    while (slot >= chunks_[chunk]->first + chunks_[chunk]->file.rows()) ++chunk;
    return chunk;
  }
  const std::byte* base_row(std::int64_t slot) const {
    const Chunk& chunk = *chunks_[chunk_of(slot)];
    chunk.file.check_once(slot - chunk.first, 1);
    return chunk.file.row(slot - chunk.first);
  }
  void open_chunks(RowsLoader& loader);
  void rebuild_overrides();

  State state_;
  std::vector<std::shared_ptr<const Chunk>> chunks_;  // as state_.base
  OverrideMap overrides_;                             // points into the overlays of state_
  std::shared_ptr<const SubKeys> sub_keys_;
  std::int64_t row_bytes_ = 0, rows_a_chunk_ = 1;
};

// The version that new snapshots get. The lock is held for the copy of a pointer and nothing else;
// std::atomic<std::shared_ptr> would do, but that of libstdc++ 12 is no synchronisation that
// ThreadSanitizer (or the memory model) accepts: its load() unlocks relaxed.
class CurrentVersion {
 public:
  std::shared_ptr<const Version> load() const {
    const std::lock_guard lock(mutex_);
    return version_;
  }
  void store(std::shared_ptr<const Version> version) {
    const std::lock_guard lock(mutex_);
    version_.swap(version);  // the one before goes when the lock is free again
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Version> version_;
};

}  // namespace memlayers::pool

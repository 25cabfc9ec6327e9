// SPDX-License-Identifier: Apache-2.0
// A pool on disk that is edited while it is read (docs/store.md). Edits are atomic, durable once
// acknowledged, and reversible; readers pin a snapshot and never wait. Knows nothing of torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/error.h"

namespace memlayers {

namespace io {
class FileSystem;
}
namespace pool {
class Version;
}

// One sub-key of a model: its memory layer (the number of the decoder layer), head, half (0: that
// of the grid's rows, 1: of its columns) and number.
struct SubKeyPlace {
  std::int64_t layer = 0, head = 0, half = 0, index = 0;
  auto operator<=>(const SubKeyPlace&) const = default;
};

// Sub-keys in place of those of the model.
struct SubKeys {
  std::int64_t width = 0;                // numbers of each: k_dim / 2; 0 where there is none
  std::vector<SubKeyPlace> places = {};  // ascending, each once
  std::vector<float> numbers = {};       // `width` for each place
  bool operator==(const SubKeys&) const = default;
};

// Which sub-keys a model has.
struct SubKeyGrid {
  std::vector<std::int64_t> layers = {};  // ascending
  std::int64_t heads = 0, n_keys = 0, width = 0;
};
SubKeyGrid sub_key_grid(const ModelConfig& config);  // no layers for a model without memory

// Rows to write into a pool, slots to free, and sub-keys of the layers that read it. On disk a
// safetensors file (docs/formats.md).
struct Patch {
  std::string id = {};    // names the patch for good: applying it twice is applying it once
  std::string pool = {};  // the id of the pool that it was made for
  std::int64_t width = 0;
  RowType row_dtype = RowType::kFloat32;
  std::vector<std::int64_t> slots = {};  // ascending, each once
  std::vector<std::byte> rows = {};      // one for each slot, contiguous, as the pool stores them
  std::vector<std::int64_t> erased =
      {};  // slots to free: their rows become zero. Ascending, not in slots
  SubKeys sub_keys = {};
  std::map<std::string, std::string> notes = {};  // free: what it teaches, when, from what
};

std::string new_patch_id();  // a random UUID
// Slots and sub-keys may stand in any order in the file. Throws Error for a file that is no patch.
Patch read_patch(const std::string& path);
Patch read_patch(io::FileSystem& fs, const std::string& path);
// Whole or not at all; `path` is replaced.
void write_patch(const std::string& path, const Patch& patch);
void write_patch(io::FileSystem& fs, const std::string& path, const Patch& patch);

// What two patches write, each list ascending.
template <class Place>
struct PlacesDiff {
  std::vector<Place> only_first, only_second;
  std::vector<Place> same, different;  // of both, with the same numbers or others
};
// Of slots; an erased one is a row of its own kind.
struct PatchDiff : PlacesDiff<std::int64_t> {
  PlacesDiff<SubKeyPlace> sub_keys;
};
// Throws Error for patches of different pools, widths or types of rows, or widths of sub-keys.
PatchDiff diff(const Patch& first, const Patch& second);
// One patch, with an id of its own, that does what applying these in this order does: where several
// write a slot or a sub-key the last one wins. Notes are put together, the last one's where they
// differ, and `merged` names the ids. Throws Error for none, and as diff().
Patch merge(std::span<const Patch> patches);

// What is known of a patch in a store.
struct PatchInfo {
  std::string id;
  std::map<std::string, std::string> notes;
  std::int64_t rows = 0, erased = 0, sub_keys = 0;
  bool is_kept = false;  // it can no longer be rolled back
};

// The pool as it was at one moment: it never changes, and what it reads from stays as long as it
// lives. Cheap to copy. All functions may be called from several threads, and none waits for the
// writer. Reading throws Error naming file and offset where a checksum does not hold, or the disk
// does not give what is mapped.
class Snapshot {
 public:
  explicit Snapshot(std::shared_ptr<const pool::Version> version) : version_(std::move(version)) {}

  // Grows with each edit, also over processes. What was computed from the rows of one version must
  // not be mixed with another's: a cache's key holds it.
  std::uint64_t version() const;
  const std::string& pool_id() const;
  std::int64_t rows() const;
  std::int64_t width() const;
  RowType row_dtype() const;
  std::int64_t row_bytes() const;   // of a row without padding
  std::int64_t num_chunks() const;  // files of the base

  // The row of one slot, row_bytes() long and at a multiple of 64 bytes; valid as long as this
  // snapshot. Its block's checksum is checked the first time that the store touches it. Where rows
  // are mapped, reading it later may wait for the disk, and fault when that fails: gather() and
  // read_rows() turn that into Error.
  const std::byte* row(std::int64_t slot) const;
  // Copies the rows of `slots`, contiguous.
  void read_rows(std::span<const std::int64_t> slots, std::span<std::byte> out) const;
  // Copies rows [first, first + out.size() / row_bytes()).
  void read(std::int64_t first, std::span<std::byte> out) const;
  // Base rows [first, first + count) are not needed in memory for now.
  void release(std::int64_t first, std::int64_t count) const;
  // Reads everything and checks every checksum anew; throws Error at the first that does not hold.
  void verify() const;
  // XXH3-128 in hex of the rows as read, whatever the sub-keys: as `memlayers inspect --digest`.
  std::string digest() const;

  bool is_overridden(std::int64_t slot) const;  // by a patch: the row is not the base's
  std::int64_t overridden_rows() const;
  // The patch that wrote the slot's row; none for a row of the base, or of patches folded into it.
  std::optional<std::string> writer_of(std::int64_t slot) const;
  // The sub-keys that patches write, as they are now; null where none does. Versions between which
  // no sub-key changed share one object.
  std::shared_ptr<const SubKeys> sub_keys() const;
  std::optional<std::string> writer_of(const SubKeyPlace& place) const;
  std::vector<PatchInfo> patches() const;  // that can be told apart, the first applied first
  std::vector<PatchInfo> undone() const;   // rolled back, and can be applied again by their id
  std::vector<std::int64_t> free_slots() const;  // ascending
  // What a patch of patches() or undone() writes.
  Patch patch(const std::string& id) const;

 private:
  std::shared_ptr<const pool::Version> version_;
};

// Two patches that write one slot, or one sub-key: the later one wins while both are applied.
struct Conflict {
  std::int64_t slot;
  std::string earlier, later;  // their ids
  bool operator==(const Conflict&) const = default;
};
struct SubKeyConflict {
  SubKeyPlace place;
  std::string earlier, later;
  bool operator==(const SubKeyConflict&) const = default;
};

// What an edit answers: it is on the disk, and every snapshot taken from now on has it.
struct Committed {
  std::uint64_t version = 0;
  bool was_there = false;           // it had been done before: nothing was changed
  std::vector<Conflict> conflicts;  // of an applied patch with those below it
  std::vector<SubKeyConflict> sub_key_conflicts = {};
};

// How rows get from their files into memory. They have the same bits either way.
enum class RowAccess {
  kMapped,  // the system reads what is touched, and takes it back when memory is short
  kMemory,  // all are read on opening
  kRead,    // a block of 64 KiB is read when it is first touched, and kept: an error of the disk
            // shows then or never
};

struct StoreOptions {
  RowAccess access = RowAccess::kMapped;
  // The sub-keys of the model that reads this pool: patches that write others are refused, and all
  // that write any where this is absent. What the log holds already must fit too, if this is given.
  std::optional<SubKeyGrid> sub_keys = {};
  // When the log holds an altered record, open what came before it instead of throwing Corruption.
  // Edits that were acknowledged are lost.
  bool to_point_in_time = false;
  std::uint64_t inline_bytes = 1 << 20;    // a patch of more goes into a segment file
  std::uint64_t log_bytes = 64 << 20;      // then the next log file begins
  std::uint64_t log_step_bytes = 1 << 20;  // of zeros that lie ready behind the log's end
};

// The one writer of a pool's folder. A folder of chunks that was never edited is opened as it is,
// and gets its log with the first edit. Functions may be called from several threads; edits that
// wait at the same time share a flush.
//
// An edit that throws has changed nothing, with one exception: when writing the log itself fails it
// is unknown what the disk holds. Then no edit is taken any more (is_writable()), snapshots stay
// as they were, and opening the folder anew tells what holds.
class Store {
 public:
  // Throws Error while another writer has the folder, Corruption where something that was
  // acknowledged is damaged.
  static Store open(const std::string& folder, const StoreOptions& options = {});
  static Store open(io::FileSystem& fs, const std::string& folder,
                    const StoreOptions& options = {});
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  Snapshot snapshot() const;
  bool is_writable() const;
  std::string health() const;  // "good", or why it takes no edit

  // All or nothing. Throws Error for a patch that does not fit: another pool's, another width, a
  // slot or sub-key out of range or twice, a number that is not finite, an id that is taken by
  // other content.
  Committed apply(const Patch& patch);
  // Takes a patch out of the stack, wherever in it: the pool is then what the others make, byte for
  // byte. Throws Error for one that is not there or is kept.
  Committed rollback(const std::string& id);
  Committed reapply(const std::string& id);  // one that was rolled back, on top of the others
  // This patch and all below it will not be rolled back: compact() may fold them into the base.
  Committed keep(const std::string& id);

  // Single rows, each a patch with an id of its own, which is returned by the last of patches().
  struct Inserted {
    std::int64_t slot;
    Committed committed;
  };
  Inserted insert(std::span<const std::byte> row);  // into the lowest free slot; Error if none is
  Committed update(std::int64_t slot, std::span<const std::byte> row);
  Committed erase(std::int64_t slot);

  // Appends rows: read(first, out) gives those from `first` on, as many as fit into out. One record
  // in the log commits them.
  Committed grow(std::int64_t rows,
                 const std::function<void(std::int64_t first, std::span<std::byte> out)>& read);
  // Folds kept patches into the base: a chunk of which more than this part is overridden by them is
  // written anew, one chunk at a time; the others' rows go into one segment. What was rolled back
  // can no longer be applied by its id.
  Committed compact(double part = 0.25);

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A reader in any process, with a writer or without one. Takes no lock.
class StoreReader {
 public:
  static StoreReader open(const std::string& folder, const StoreOptions& options = {});
  static StoreReader open(io::FileSystem& fs, const std::string& folder,
                          const StoreOptions& options = {});
  StoreReader(StoreReader&&) noexcept;
  StoreReader& operator=(StoreReader&&) noexcept;
  ~StoreReader();

  Snapshot snapshot() const;
  // Follows the log; whether there is a new snapshot. Only what is on the disk becomes visible. Not
  // for several threads at once, but snapshot() may go on meanwhile. After an Error the snapshot is
  // the one before.
  bool refresh();

 private:
  struct Impl;
  explicit StoreReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace memlayers

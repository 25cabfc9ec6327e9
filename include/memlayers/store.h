// SPDX-License-Identifier: Apache-2.0
// A pool on disk that is edited while it is read (docs/store.md). Edits are atomic, durable once
// acknowledged, and reversible; readers pin a snapshot and never wait. Knows nothing of torch.
#pragma once

#include <compare>
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
#include "memlayers/patch.h"

namespace memlayers {

namespace pool {
class LogFollower;
class Version;
struct StoreParts;
}  // namespace pool

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
  bool operator==(const Snapshot&) const = default;   // copies of one
  auto operator<=>(const Snapshot&) const = default;  // some order
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
  // What patches() say that they teach, and those that are folded into the base; the first first.
  std::vector<PatchSubjects> subjects() const;
  std::vector<std::int64_t> free_slots() const;  // ascending
  // What a patch of patches() or undone() writes.
  Patch patch(const std::string& id) const;
  // The same pool as if these patches had been rolled back: what the others make of it, byte for
  // byte, and patches() without them. version() stays; == tells the two apart. Costs what the
  // patches write; nothing of the base is copied. Those of undone() may be named too. Throws Error
  // for an id of neither.
  Snapshot without(std::span<const std::string> ids) const;
  // Whether lookups and these rows read the same in `other`, a snapshot of the same store: told by
  // where they lie, so that false may also be said of equal ones. Reads no row. Throws Error for a
  // slot outside of either.
  bool reads_as(const Snapshot& other, std::span<const std::int64_t> slots) const;

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
  explicit Store(std::unique_ptr<pool::StoreParts> parts);  // the library's own
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
  // Several in this order, all of them or none, whatever happens: one write commits them.
  std::vector<Committed> apply(std::span<const Patch> patches);
  // Takes a patch out of the stack, wherever in it: the pool is then what the others make, byte for
  // byte. Throws Error for one that is not there or is kept.
  Committed rollback(const std::string& id);
  std::vector<Committed> rollback(std::span<const std::string> ids);  // all or none
  Committed reapply(const std::string& id);  // one that was rolled back, on top of the others
  std::vector<Committed> reapply(std::span<const std::string> ids);  // all or none
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
  std::unique_ptr<pool::StoreParts> parts_;
};

// A reader in any process, with a writer or without one. Takes no lock.
class StoreReader {
 public:
  static StoreReader open(const std::string& folder, const StoreOptions& options = {});
  explicit StoreReader(std::unique_ptr<pool::LogFollower> log);  // the library's own
  StoreReader(StoreReader&&) noexcept;
  StoreReader& operator=(StoreReader&&) noexcept;
  ~StoreReader();

  Snapshot snapshot() const;
  // Follows the log; whether there is a new snapshot. Only what is on the disk becomes visible. Not
  // for several threads at once, but snapshot() may go on meanwhile. After an Error the snapshot is
  // the one before.
  bool refresh();

 private:
  std::unique_ptr<pool::LogFollower> log_;
};

}  // namespace memlayers

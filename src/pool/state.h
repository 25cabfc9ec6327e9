// SPDX-License-Identifier: Apache-2.0
// What the log of a store says: which chunks are the base, which patches lie over them. The records
// of the log are the steps from one state to the next.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "memlayers/subjects.h"
#include "pool/log.h"
#include "pool/overlay.h"
#include "pool/rows_file.h"

namespace memlayers::pool {

struct ChunkEntry {
  std::string name;  // of the file
  std::int64_t first = 0, rows = 0;
  std::string digest;
  bool operator==(const ChunkEntry&) const = default;
};

// A patch in the store. Shared by the states that hold it, and immutable but for `log` and `group`,
// which the one that writes the log sets before anybody else sees the patch.
struct PatchEntry {
  std::string id, content;  // content: its digest
  std::map<std::string, std::string> notes;
  std::shared_ptr<const SubjectRegistry> subjects;  // null: none
  std::int64_t rows = 0, erased = 0, sub_keys = 0, key_width = 0;
  std::string segment;  // the file that holds the rows; empty: the log does
  std::string log;      // then: the file, the group and the record that do
  std::uint64_t group = 0, lsn = 0;
  std::shared_ptr<const Overlay> overlay;
};
using PatchPointer = std::shared_ptr<PatchEntry>;
// Of what a patch writes, with its digest.
PatchEntry entry_of(const std::string& id, const Writes& writes);

// The slots of all patches over the base, from the bottom up: `bottom`, then `stack`.
struct State {
  PoolInfo pool;
  std::uint64_t lsn = 0;         // of the last record
  std::vector<ChunkEntry> base;  // by first row
  PatchPointer bottom;           // what is left over the base of patches that were folded; or null
  std::vector<PatchPointer> stack;            // patches, the last one on top
  std::size_t kept = 0;                       // of these, from the bottom: never rolled back
  std::vector<PatchPointer> undone;           // rolled back; their rows are still there
  std::map<std::string, std::string> folded;  // id -> content of patches that are in base or bottom
  std::vector<PatchSubjects> folded_subjects;  // of those of them that have some

  PatchPointer find(const std::string& id) const;         // in the stack; or null
  PatchPointer find_undone(const std::string& id) const;  // or null
  std::vector<PatchPointer> layers() const;               // bottom and stack
  std::vector<PatchPointer> entries() const;              // and undone
  std::set<std::string> files() const;  // names of all that it needs, but the live log
};

// The payloads of the records, as docs/store.md has them.
std::string state_payload(const State& state);
RecordType apply_type(const PatchEntry& patch);
std::string apply_payload(const PatchEntry& patch, const Writes& writes);  // none with a segment
std::string id_payload(const std::string& id);
std::string swap_payload(const ChunkEntry& chunk);
std::string fold_payload(const std::vector<std::string>& ids, const PatchPointer& bottom);
std::string grow_payload(std::int64_t rows, const std::vector<ChunkEntry>& chunks);

// The state that the first record of a log holds.
State state_of(const Record& record, const std::string& log_path);
// The next step. `log_path` is the file that the record is in, for errors and for the place of
// rows. Throws Corruption for a record that does not fit the state; the state is then of no use.
void advance(State& state, const Record& record, const std::string& log_path);
// The rows of a patch in the log.
std::shared_ptr<const Overlay> overlay_of(const Record& record, const PoolInfo& pool,
                                          const std::string& log_path);

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
// The commit log of a store (docs/store.md): groups of records, each group written and synced as
// one. A file is made of 512-byte sectors that each carry a checksum, in a file that was zero
// before: so a group that a crash tore (a sector is still zero) is told from one that was altered
// (a sector is neither zero nor right), also when it is the last one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::pool {

enum class RecordType : std::uint32_t {
  kState = 1,  // everything that a reader must know; the first record of a log
  kApply,
  kRollback,
  kReapply,
  kKeep,
  kSwap,
  kFold,
  kGrow,
  kApplyWithSubKeys,  // of its own, so that a reader that does not know them refuses the log
};

struct Record {
  RecordType type;
  std::uint64_t lsn;  // log sequence number: of all records of a pool, over all of its logs
  std::string payload;
  std::uint64_t group = 0;  // where its group begins in the file
};

// Reads a log from its start, group by group, without believing anything in it. Throws Corruption
// naming file and offset.
class LogCursor {
 public:
  LogCursor(std::shared_ptr<io::File> file, std::string path);

  // The records of the next group; none where the log ends. A group that is whole but not what
  // follows, or altered, is an Error.
  std::optional<std::vector<Record>> next_group();
  // The group that begins at `offset`, whatever came before.
  std::vector<Record> group_at(std::uint64_t offset);
  // After the last group: whether a group was begun and torn. What lies behind the end must be
  // zero or a part of that group, else an acknowledged group is lost: Corruption.
  bool is_torn() const;

  // What the file holds now is on the disk on return, and is read from there.
  void make_durable() {
    file_->sync();
    file_->drop_cache();
  }

  const std::string& path() const { return path_; }
  std::uint64_t end() const { return end_; }  // where the next group goes
  std::uint64_t next_lsn() const { return next_lsn_; }

 private:
  friend class LogWriter;
  bool is_sector_good(std::span<const std::byte> sector, std::uint64_t offset) const;
  // The stream of the group at `offset`; none where it was not written whole.
  std::optional<std::vector<std::byte>> read_group(std::uint64_t offset,
                                                   std::uint64_t& group_end) const;
  std::vector<Record> parse(std::span<const std::byte> stream, std::uint64_t offset,
                            std::uint64_t& lsn, std::uint64_t& previous) const;

  std::shared_ptr<io::File> file_;
  std::string path_;
  std::uint64_t salt_ = 0, end_ = 0, next_lsn_ = 0;
  std::uint64_t begin_ = 0;     // of the second group
  std::uint64_t previous_ = 0;  // checksum of the last record
};

// Appends groups to a log. Not for several threads.
class LogWriter {
 public:
  // Makes `path` (through a temporary name) with one group of one record, durable on return except
  // for its name, which is so once the folder is synced. `step_bytes` of zeros lie ready for more.
  static LogWriter create(io::FileSystem& fs, const std::string& path, const Record& first,
                          std::uint64_t step_bytes);
  // Goes on behind a log that was read to its end and is not torn.
  static LogWriter resume(const LogCursor& cursor, std::uint64_t step_bytes);

  // Takes the room that a group of these records needs. An Error has changed nothing: nothing was
  // promised yet. (One of sync() is another matter: see has_failed().)
  void reserve(std::span<const Record> records);
  // Writes and syncs one group: the commit point. After an Error what the disk holds is unknown.
  void append(std::span<const Record> records);

  const std::string& path() const { return path_; }
  std::uint64_t bytes() const { return end_ - begin_; }  // of groups behind the first
  std::uint64_t end() const { return end_; }
  // A write or sync failed where that leaves the file in a state unknown: it must not be written
  // again.
  bool has_failed() const { return has_failed_; }

 private:
  LogWriter() = default;
  std::vector<std::byte> encode(std::span<const Record> records, std::uint64_t& previous) const;

  std::shared_ptr<io::File> file_;
  std::string path_;
  std::uint64_t salt_ = 0, begin_ = 0, end_ = 0, size_ = 0, step_bytes_ = 0;
  std::uint64_t previous_ = 0;
  bool has_failed_ = false;
};

}  // namespace memlayers::pool

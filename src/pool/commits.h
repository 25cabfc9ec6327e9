// SPDX-License-Identifier: Apache-2.0
// How edits of a store become durable: one after the other, those that wait at the same time with
// one write and one sync of the log.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "memlayers/store.h"
#include "pool/recovery.h"
#include "pool/version.h"

namespace memlayers::pool {

// A record to commit.
struct Draft {
  RecordType type;
  std::string payload;
};
// Given the version that it would follow, what to commit; none where that is done already.
using Drafting = std::function<std::optional<Draft>(const Version&)>;

// The versions of a folder whose writer this process is, and its log. Callable from any threads.
class Commits {
 public:
  Commits(io::FileSystem& fs, std::string folder, const StoreOptions& options);

  std::shared_ptr<const Version> published() const { return published_.load(); }
  std::string failure() const;  // why no edit is taken any more; "" while some are

  // Commits what `drafting` makes, together with what others commit at the same time. Returns once
  // it is durable and published.
  Committed commit(const Drafting& drafting);
  // Commits what these make, each after the one before, as one: the disk has all of it or none, and
  // so has every snapshot.
  std::vector<Committed> commit_all(std::span<const Drafting> draftings);

  bool has_log() const { return log_.has_value(); }  // on opening; later see ensure_log()
  void ensure_log();                                 // that of a pool that was never edited
  // All files that the folder needs, but LOCK and CURRENT. On opening.
  std::set<std::string> files() const;
  // Removes a file that nobody needs; a failure leaves it to the next opening of the folder.
  void remove(const std::string& name);
  // Of these files those that nobody needs any more.
  void remove_unneeded(const std::set<std::string>& names);
  // Removes `names` after an edit that failed, unless the log may hold it nevertheless.
  void give_up(const std::vector<std::string>& names);

 private:
  struct Waiting {
    std::vector<Record> records;             // none: only to wait for what was there
    std::vector<PatchPointer> in_log;        // those of which these records hold the rows
    std::shared_ptr<const Version> version;  // after them
    bool is_done = false;
    std::string error;
  };
  void check_writable() const;
  void flush_some(std::unique_lock<std::mutex>& lock);
  void write_group(const std::vector<Waiting*>& batch);
  LogWriter& start_log(const State& state);
  std::string path(const std::string& name) const { return io::join(folder_, name); }

  io::FileSystem& fs_;
  const std::string folder_;
  const std::uint64_t log_bytes_, log_step_bytes_;
  CurrentVersion published_;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable flushed_;
  RowsLoader loader_;
  std::shared_ptr<const Version> pending_;  // after all that waits
  std::deque<Waiting*> queue_;
  bool is_flushing_ = false;  // then the last three are those of the thread that flushes
  std::string failure_;
  std::optional<LogWriter> log_;
  std::string log_name_;
  bool is_current_unknown_ = false;  // which log CURRENT names after a crash
};

}  // namespace memlayers::pool

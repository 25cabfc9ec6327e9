// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "memlayers/store.h"
#include "pool/recovery.h"
#include "pool/version.h"

namespace memlayers {

struct Store::Impl {
  Impl(io::FileSystem& fs, std::string folder, const StoreOptions& options);

  // A record to commit.
  struct Draft {
    pool::RecordType type;
    std::string payload;
  };
  // Given the version that it would follow, what to commit; none where that is done already.
  using Drafting = std::function<std::optional<Draft>(const pool::Version&)>;
  // Commits what `drafting` makes, together with what others commit at the same time. Returns once
  // it is durable and published.
  Committed commit(const Drafting& drafting);
  Committed apply(const Patch& patch);
  // A patch of one slot that depends on the version it follows.
  Committed edit(const std::function<std::optional<Patch>(const pool::Version&)>& make);
  std::shared_ptr<const pool::Version> published() const { return published_.load(); }

  // Slots that kept patches write, and where their rows are.
  using Kept = std::map<std::int64_t, pool::RowPlace>;
  // Writes a chunk anew where more than this part of its rows are kept ones, takes those out of
  // `kept` and returns true.
  bool rewrite_chunk(std::size_t index, double part, Kept& kept);

  // The log of a pool that was never edited.
  void ensure_log();
  // Removes a file that nobody needs; a failure leaves it to the next opening of the folder.
  void remove(const std::string& name);
  // Of these files those that nobody needs any more.
  void remove_unneeded(const std::set<std::string>& names);
  // Removes `names` after an edit that failed, unless the log may hold it nevertheless.
  void give_up(const std::vector<std::string>& names);
  std::string path(const std::string& name) const { return io::join(folder_, name); }

  io::FileSystem& fs_;
  const std::string folder_;
  const StoreOptions options_;
  std::unique_ptr<io::Lock> lock_;
  pool::CurrentVersion published_;
  std::mutex maintenance_;  // one grow() or compact() at a time; locked before mutex_

  struct Waiting {
    std::optional<pool::Record> record;            // none: only to wait for what was there
    std::shared_ptr<const pool::Version> version;  // after it
    bool is_done = false;
    std::string error;
  };
  std::mutex mutex_;  // guards all below
  std::condition_variable flushed_;
  pool::RowsLoader loader_;
  std::shared_ptr<const pool::Version> pending_;  // after all that waits
  std::deque<Waiting*> queue_;
  bool is_flushing_ = false;  // then the last three are those of the thread that flushes
  std::string failure_;       // why no edit is taken any more
  std::optional<pool::LogWriter> log_;
  std::string log_name_;
  bool is_current_unknown_ = false;  // which log CURRENT names after a crash

 private:
  void check_writable() const;
  void flush_some(std::unique_lock<std::mutex>& lock);
  void write_group(const std::vector<Waiting*>& batch);
  pool::LogWriter& start_log(const pool::State& state);
  void delete_orphans(const pool::State& state);
};

}  // namespace memlayers

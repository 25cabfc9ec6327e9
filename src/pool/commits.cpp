// SPDX-License-Identifier: Apache-2.0
#include "pool/commits.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::pool {
namespace {

constexpr std::uint64_t kGroupBytes = 4 << 20;  // of records in one flush

}  // namespace

Commits::Commits(io::FileSystem& fs, std::string folder, const StoreOptions& options)
    : fs_(fs),
      folder_(std::move(folder)),
      log_bytes_(options.log_bytes),
      log_step_bytes_(options.log_step_bytes),
      loader_(fs, folder_, options) {
  try {
    Recovered recovered = recover(fs, folder_, io::OpenMode::kReadWrite, options.to_point_in_time);
    pending_ = Version::build(std::move(recovered.state), loader_);
    log_name_ = recovered.log;
    if (!log_name_.empty()) {
      if (recovered.is_torn || !recovered.cursor) {
        start_log(pending_->state());
      } else {
        log_ = LogWriter::resume(*recovered.cursor, log_step_bytes_);
      }
    }
  } catch (const io::NotFound& error) {
    throw Corruption(std::string(error.what()) + ": the pool needs this file");
  }
  published_.store(pending_);
}

std::string Commits::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::set<std::string> Commits::files() const {
  std::set<std::string> names = pending_->state().files();
  if (!log_name_.empty()) names.insert(log_name_);
  return names;
}

void Commits::remove(const std::string& name) {
  try {
    fs_.unlink(path(name));
  } catch (const Error&) {  // an orphan: the next writer deletes it
  }
}

void Commits::remove_unneeded(const std::set<std::string>& names) {
  std::unique_lock lock(mutex_);
  flushed_.wait(lock, [&] { return !is_flushing_; });
  const std::set<std::string> needed = pending_->state().files();
  for (const std::string& name : names) {
    if (!needed.contains(name) && name != log_name_) remove(name);
  }
}

void Commits::give_up(const std::vector<std::string>& names) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.empty()) return;
  }
  for (const std::string& name : names) remove(name);
}

void Commits::check_writable() const {
  if (failure_.empty()) return;
  throw Error(folder_ + ": expected a store that takes edits, got one that stopped: " + failure_ +
              "; open it again");
}

// A new log that begins with `state`, which has no more and no less than what is durable.
LogWriter& Commits::start_log(const State& state) {
  const std::string name = log_name(log_number(log_name_) + 1);
  LogWriter log = LogWriter::create(
      fs_, path(name), {RecordType::kState, state.lsn, state_payload(state)}, log_step_bytes_);
  try {
    fs_.sync_folder(folder_);
  } catch (const Error&) {
    remove(name);
    throw;
  }
  try {
    write_current(fs_, folder_, name);
  } catch (const Error&) {
    // Where CURRENT names the new log but is not durable, it may name either one after a crash:
    // what goes into one of them might never be seen.
    is_current_unknown_ = true;
    try {
      is_current_unknown_ = read_current(fs_, folder_).value_or("") != log_name_;
    } catch (const Error&) {  // then it is unknown; the first error is the one to tell
    }
    if (!is_current_unknown_) remove(name);
    throw;
  }
  LogWriter& started = log_.emplace(std::move(log));
  const std::string before = std::exchange(log_name_, name);
  if (!before.empty() && !state.files().contains(before)) remove(before);
  return started;
}

void Commits::ensure_log() {
  std::unique_lock lock(mutex_);
  check_writable();
  flushed_.wait(lock, [&] { return !is_flushing_; });
  check_writable();
  if (log_) return;
  try {
    start_log(published()->state());
  } catch (const std::exception& error) {
    if (is_current_unknown_) failure_ = error.what();
    throw;
  }
}

void Commits::write_group(const std::vector<Waiting*>& batch) {
  std::vector<Record> records;
  for (Waiting* waiting : batch) {
    std::ranges::move(waiting->records, std::back_inserter(records));
  }
  if (records.empty()) return;
  const bool has_room = log_ && log_->bytes() <= log_bytes_;
  LogWriter& log = has_room ? *log_ : start_log(published()->state());
  for (const Waiting* waiting : batch) {
    for (const PatchPointer& patch : waiting->in_log) {
      patch->log = log_name_;
      patch->group = log.end();
    }
  }
  log.reserve(records);
  log.append(records);
}

// Commits some of what waits, as the only one who does.
void Commits::flush_some(std::unique_lock<std::mutex>& lock) {
  is_flushing_ = true;
  std::vector<Waiting*> batch;
  for (std::uint64_t bytes = 0; !queue_.empty() && (batch.empty() || bytes < kGroupBytes);) {
    for (const Record& record : queue_.front()->records) bytes += record.payload.size();
    batch.push_back(queue_.front());
    queue_.pop_front();
  }
  lock.unlock();
  std::string error, failure;
  try {
    write_group(batch);
  } catch (const std::exception& caught) {
    error = caught.what();
    if ((log_ && log_->has_failed()) || is_current_unknown_) failure = error;
  }
  lock.lock();
  is_flushing_ = false;
  if (failure_.empty()) failure_ = failure;
  if (error.empty()) {
    published_.store(batch.back()->version);
  } else {
    // What waits behind was made to follow what failed.
    batch.insert(batch.end(), queue_.begin(), queue_.end());
    queue_.clear();
    pending_ = published();
  }
  for (Waiting* waiting : batch) {
    waiting->error = error;
    waiting->is_done = true;
  }
  flushed_.notify_all();
}

Committed Commits::commit(const Drafting& drafting) {
  return commit_all(std::span(&drafting, 1)).front();
}

std::vector<Committed> Commits::commit_all(std::span<const Drafting> draftings) {
  std::unique_lock lock(mutex_);
  check_writable();
  Waiting waiting;
  waiting.version = pending_;  // done already, but perhaps by one that still waits: wait with it
  std::vector<Committed> committed;
  for (const Drafting& drafting : draftings) {
    std::optional<Draft> draft = drafting(*waiting.version);
    if (draft) {
      waiting.records.push_back(
          {draft->type, waiting.version->state().lsn + 1, std::move(draft->payload)});
      // Which log it goes into is known when it is written, by who writes: write_group() says so.
      waiting.version = waiting.version->next(waiting.records.back(), path("log"), loader_);
      const bool applies =
          draft->type == RecordType::kApply || draft->type == RecordType::kApplyWithSubKeys;
      if (applies && waiting.version->state().stack.back()->segment.empty()) {
        waiting.in_log.push_back(waiting.version->state().stack.back());
      }
    }
    committed.push_back({waiting.version->state().lsn, !draft, {}});
  }
  pending_ = waiting.version;
  queue_.push_back(&waiting);
  while (!waiting.is_done) {
    if (is_flushing_) {
      flushed_.wait(lock);
    } else {
      flush_some(lock);
    }
  }
  if (!waiting.error.empty()) throw Error(waiting.error);
  return committed;
}

}  // namespace memlayers::pool

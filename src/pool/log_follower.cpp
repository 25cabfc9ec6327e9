// SPDX-License-Identifier: Apache-2.0
#include "pool/log_follower.h"

#include <chrono>
#include <thread>
#include <utility>

#include "memlayers/error.h"
#include "pool/recovery.h"

namespace memlayers::pool {
namespace {

// The writer may remove a file that was just named, and be in the middle of writing what is read:
// both pass. What does not pass is an error.
template <class Act>
bool patiently(const Act& act) {
  for (int tries_left = 20;; --tries_left) {
    try {
      return act();
    } catch (const io::NotFound&) {
      if (tries_left == 0) throw;
    } catch (const Corruption&) {
      if (tries_left == 0) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

LogFollower::LogFollower(io::FileSystem& fs, std::string folder, const StoreOptions& options)
    : fs_(fs),
      folder_(std::move(folder)),
      to_point_in_time_(options.to_point_in_time),
      loader_(fs, folder_, options) {
  patiently([&] {
    open();
    return true;
  });
}

bool LogFollower::refresh() {
  return patiently([&] { return follow(); });
}

void LogFollower::open() {
  Recovered recovered = recover(fs_, folder_, io::OpenMode::kRead, to_point_in_time_);
  const auto before = version_.load();
  if (before == nullptr || before->state().lsn != recovered.state.lsn ||
      log_.empty() != recovered.log.empty()) {
    version_.store(Version::build(std::move(recovered.state), loader_));
  }
  log_ = recovered.log;
  cursor_ = recovered.cursor;
}

bool LogFollower::follow() {
  const auto before = version_.load();
  const auto current = read_current(fs_, folder_);
  if (current.value_or("") != log_) {
    open();
    return version_.load() != before;
  }
  if (!cursor_) return false;
  LogCursor probe = *cursor_;
  while (probe.next_group()) {
  }
  if (probe.end() == cursor_->end()) return false;
  // There is something new. Only what is on the disk may be seen, and memory may hold more.
  cursor_->make_durable();
  LogCursor cursor = *cursor_;
  std::shared_ptr<const Version> version = before;
  while (const auto records = cursor.next_group()) {
    for (const Record& record : *records) {
      version = version->next(record, cursor.path(), loader_);
    }
    if (cursor.end() >= probe.end()) break;  // what came later may not be durable
  }
  cursor_ = cursor;
  version_.store(version);
  return true;
}

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <thread>

#include "memlayers/store.h"
#include "pool/recovery.h"
#include "pool/version.h"

namespace memlayers {

struct StoreReader::Impl {
  Impl(io::FileSystem& fs, std::string folder, const StoreOptions& options)
      : fs_(fs),
        folder_(std::move(folder)),
        to_point_in_time_(options.to_point_in_time),
        loader_(fs, folder_, options) {
    patiently([&] {
      open();
      return true;
    });
  }

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

  void open() {
    pool::Recovered recovered = pool::recover(fs_, folder_, io::OpenMode::kRead, to_point_in_time_);
    const auto before = version_.load();
    if (before == nullptr || before->state().lsn != recovered.state.lsn ||
        log_.empty() != recovered.log.empty()) {
      version_.store(pool::Version::build(std::move(recovered.state), loader_));
    }
    log_ = recovered.log;
    cursor_ = recovered.cursor;
  }

  bool refresh() {
    const auto before = version_.load();
    const auto current = pool::read_current(fs_, folder_);
    if (current.value_or("") != log_) {
      open();
      return version_.load() != before;
    }
    if (!cursor_) return false;
    pool::LogCursor probe = *cursor_;
    while (probe.next_group()) {
    }
    if (probe.end() == cursor_->end()) return false;
    // There is something new. Only what is on the disk may be seen, and memory may hold more.
    cursor_->make_durable();
    pool::LogCursor cursor = *cursor_;
    std::shared_ptr<const pool::Version> version = before;
    while (const auto records = cursor.next_group()) {
      for (const pool::Record& record : *records) {
        version = version->next(record, cursor.path(), loader_);
      }
      if (cursor.end() >= probe.end()) break;  // what came later may not be durable
    }
    cursor_ = cursor;
    version_.store(version);
    return true;
  }

  io::FileSystem& fs_;
  const std::string folder_;
  const bool to_point_in_time_;
  pool::RowsLoader loader_;
  pool::CurrentVersion version_;
  std::string log_;  // name of the log that cursor_ reads; empty: never edited
  std::optional<pool::LogCursor> cursor_;
};

StoreReader::StoreReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StoreReader::StoreReader(StoreReader&&) noexcept = default;
StoreReader& StoreReader::operator=(StoreReader&&) noexcept = default;
StoreReader::~StoreReader() = default;

StoreReader StoreReader::open(const std::string& folder, const StoreOptions& options) {
  return open(io::posix(), folder, options);
}
StoreReader StoreReader::open(io::FileSystem& fs, const std::string& folder,
                              const StoreOptions& options) {
  return StoreReader(std::make_unique<Impl>(fs, folder, options));
}

Snapshot StoreReader::snapshot() const { return Snapshot(impl_->version_.load()); }
bool StoreReader::refresh() {
  return impl_->patiently([&] { return impl_->refresh(); });
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::testing {

enum class Failure {
  kIoError,   // this one call fails and does nothing
  kDiskFull,  // this and every later call that takes room fails, a write after half of its bytes;
              // removing works
  kTorn,      // a write does half of its bytes, then the machine stops
  kCrash,     // the machine stops: this and every later change fails and does nothing
};

// The real file system until its n-th call that changes something. What was not synced when the
// machine stops is lost as a disk may lose it: a file written since its last sync keeps half, a
// name made since the last sync of its folder is gone.
class FailingFileSystem : public io::FileSystem {
 public:
  static constexpr std::int64_t kNever = 0;
  explicit FailingFileSystem(std::int64_t call = kNever, Failure failure = Failure::kIoError)
      : fail_at_(call), failure_(failure) {}
  std::int64_t calls() const { return calls_; }  // that change something, so far
  std::int64_t open_files() const { return open_files_; }

  std::unique_ptr<io::File> open(const std::string& path, io::OpenMode mode) override;
  std::unique_ptr<io::Mapping> map(const std::string& path) override {
    return io::posix().map(path);
  }
  std::unique_ptr<io::Scratch> make_scratch(const std::string& folder,
                                            std::uint64_t bytes) override {
    change(folder);
    return io::posix().make_scratch(folder, bytes);
  }
  std::unique_ptr<io::Lock> lock(const std::string& path) override {
    return io::posix().lock(path);
  }
  void rename(const std::string& from, const std::string& to) override;
  void unlink(const std::string& path) override;
  void remove_folder(const std::string& path) override;
  void make_folder(const std::string& path) override;
  void sync_folder(const std::string& path) override;
  std::vector<std::string> list(const std::string& folder) override {
    return io::posix().list(folder);
  }
  bool exists(const std::string& path) override { return io::posix().exists(path); }
  bool is_folder(const std::string& path) override { return io::posix().is_folder(path); }
  bool is_link(const std::string& path) override { return io::posix().is_link(path); }

 private:
  class FailingFile;
  bool is_due();  // counts a call; whether it fails
  void change(const std::string& path, bool takes_room = true);
  void stop();
  [[noreturn]] void fail(const std::string& path) const;

  std::int64_t fail_at_, calls_ = 0, open_files_ = 0;
  Failure failure_;
  bool is_stopped_ = false;
  std::set<std::string> unsynced_files_, unsynced_names_;
};

inline constexpr Failure kFailures[] = {Failure::kIoError, Failure::kDiskFull, Failure::kTorn,
                                        Failure::kCrash};

}  // namespace memlayers::testing

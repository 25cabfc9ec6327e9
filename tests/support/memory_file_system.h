// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::testing {

// A file system in memory that knows what is on its disk and what is not there yet, and that can
// fail at any call. What is written lies in memory until the file is synced, what is named until
// the folder is; a power loss keeps any part of that, in any order: sectors of 512 bytes each for
// itself, a file's new length, each change of a name.
//
// A sync that fails leaves memory as it is, and forgets that it is not on the disk: a later sync
// does not write it, dropping the cache shows what the disk holds (as Linux does).
//
// A copy shares nothing with the original. Not for several threads.
class MemoryFileSystem : public io::FileSystem {
 public:
  enum class Fault {
    kOnce,      // the call fails and does nothing; a write does half
    kFromThen,  // so do all later calls that change something
    kFullDisk,  // a write does half, and so do all later calls that take room; removing works
  };
  MemoryFileSystem() = default;
  MemoryFileSystem(const MemoryFileSystem& other);
  MemoryFileSystem& operator=(const MemoryFileSystem& other) = delete;

  // From now on the n-th call (of any kind that can fail), counting from 1, fails.
  void fail_at(std::int64_t call, Fault fault) {
    fail_at_ = call, fault_ = fault, calls_ = 0, has_failed_ = false;
  }
  void fail_never() { fail_at_ = 0; }
  std::int64_t calls() const { return calls_; }
  bool has_failed() const { return has_failed_; }
  // Called before each call that changes something.
  std::function<void(const std::string& what)> before_change;

  // Calls f for the states that a power loss now may leave on the disk: all of them where there are
  // no more than `most`, else `most` of them: a first part kept and the rest lost, a single thing
  // lost, everything kept, then random ones. Returns how many.
  std::int64_t for_each_power_loss(std::int64_t most,
                                   const std::function<void(MemoryFileSystem&)>& f) const;

  std::unique_ptr<MemoryFileSystem> random_power_loss(std::uint64_t seed) const;

  std::vector<std::string> files() const;  // paths
  std::size_t file_size(const std::string& path) const { return names_.at(path)->memory.size(); }
  std::byte byte_at(const std::string& path, std::size_t offset) const {
    return names_.at(path)->memory[offset];
  }
  void flip_bit(const std::string& path, std::size_t offset, unsigned bit);  // also on the disk
  void cut(const std::string& path, std::size_t size);

  std::unique_ptr<io::File> open(const std::string& path, io::OpenMode mode) override;
  std::unique_ptr<io::Mapping> map(const std::string& path) override;
  std::unique_ptr<io::Lock> lock(const std::string& path) override;
  void rename(const std::string& from, const std::string& to) override;
  void exchange(const std::string& one, const std::string& other) override;  // folders
  void link(const std::string& from, const std::string& to) override;
  void unlink(const std::string& path) override;
  void remove_folder(const std::string& path) override;
  void make_folder(const std::string& path) override;
  void sync_folder(const std::string& path) override;
  std::vector<std::string> list(const std::string& folder) override;
  bool exists(const std::string& path) override;
  bool is_folder(const std::string& path) override { return folders_.contains(path); }

 private:
  using Bytes = std::vector<std::byte>;
  struct Node {
    Bytes memory, disk;
    bool is_forgotten = false;  // a sync failed: what differs is never written
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;
  struct NameChange {  // one step of the folder
    std::optional<std::string> removed, added;
    std::shared_ptr<Node> node;
    bool is_exchange = false;  // of two folders, `removed` and `added`
    void apply(Names& names) const;
  };
  // One thing that the disk may or may not have after a power loss: a sector or a file's length; or
  // a change of a name, where node is null.
  struct Loose {
    std::shared_ptr<Node> node;
    std::optional<std::size_t> sector;
    std::size_t change = 0;
  };
  class MemoryFile;
  class MemoryMapping;
  class MemoryLock;

  enum class Kind { kReads, kChanges, kTakesRoom };
  bool is_due(Kind kind, const std::string& path);  // counts a call; whether it fails
  void call(Kind kind, const std::string& path);    // throws where it does
  [[noreturn]] void fail(const std::string& path) const;
  std::vector<Loose> loose() const;
  std::unique_ptr<MemoryFileSystem> after_loss(const std::vector<Loose>& loose,
                                               const std::vector<bool>& is_kept) const;

  std::set<std::string> folders_;
  Names names_, disk_names_;
  std::vector<NameChange> changes_;  // from disk_names_ to names_
  std::set<std::string> locked_;
  std::int64_t fail_at_ = 0, calls_ = 0;
  Fault fault_ = Fault::kOnce;
  bool has_failed_ = false;
};

}  // namespace memlayers::testing

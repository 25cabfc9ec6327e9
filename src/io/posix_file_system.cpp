// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "io/file_system.h"
#include "io/mapped_read.h"
#include "io/posix_file.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

class PosixLock final : public Lock {
 public:
  explicit PosixLock(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

 private:
  Descriptor descriptor_;
};

class PosixMapping final : public Mapping {
 public:
  PosixMapping(const std::string& path, int descriptor, std::size_t size) : size_(size) {
    if (size == 0) return;  // mmap refuses nothing; an empty span needs none
    data_ = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data_ == MAP_FAILED) fail(path, "cannot map");
    name_.emplace(PosixMapping::bytes(), path);
  }
  ~PosixMapping() override {
    name_.reset();  // before others may get the addresses
    if (size_ > 0) ::munmap(data_, size_);
  }
  PosixMapping(const PosixMapping&) = delete;
  PosixMapping& operator=(const PosixMapping&) = delete;
  std::span<const std::byte> bytes() const override {
    return {static_cast<const std::byte*>(data_), size_};
  }
  void release(std::span<const std::byte> part) const override {
    if (part.empty()) return;
    const auto pages = pages_of(part);
    ::madvise(pages.data(), pages.size(), MADV_DONTNEED);
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
  std::optional<NamedBytes> name_;
};

class PosixScratch final : public Scratch {
 public:
  PosixScratch(std::unique_ptr<PosixFile> file, const std::string& folder, std::size_t size)
      : file_(std::move(file)), size_(size) {
    if (size == 0) return;
    data_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file_->descriptor(), 0);
    if (data_ == MAP_FAILED) fail(folder, "cannot map a scratch file");
    name_.emplace(PosixScratch::bytes(), folder + ": scratch file");
  }
  ~PosixScratch() override {
    name_.reset();
    if (size_ > 0) ::munmap(data_, size_);
  }
  PosixScratch(const PosixScratch&) = delete;
  PosixScratch& operator=(const PosixScratch&) = delete;
  std::span<std::byte> bytes() const override { return {static_cast<std::byte*>(data_), size_}; }
  void write_back() const override {
    ::sync_file_range(file_->descriptor(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }

 private:
  std::unique_ptr<PosixFile> file_;
  void* data_ = nullptr;
  std::size_t size_;
  std::optional<NamedBytes> name_;
};

// A new file in `folder` that has no name, at the latest when this returns.
Descriptor open_nameless(const std::string& folder) {
  Descriptor descriptor(::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (descriptor) return descriptor;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
    fail(folder, "cannot make a scratch file in it");
  }
  std::string path = join(folder, "memlayers-scratch-XXXXXX");  // not every disk has O_TMPFILE
  descriptor = Descriptor(::mkostemp(path.data(), O_CLOEXEC));
  if (!descriptor) fail(folder, "cannot make a scratch file in it");
  ::unlink(path.c_str());
  return descriptor;
}

class PosixFileSystem final : public FileSystem {
 public:
  std::unique_ptr<File> open(const std::string& path, OpenMode mode) override {
    const bool is_new = mode == OpenMode::kCreate;
    int flags = mode == OpenMode::kRead ? O_RDONLY : O_RDWR;
    if (is_new) flags |= O_CREAT | O_EXCL;
    return std::make_unique<PosixFile>(
        path, open_regular(path, flags, is_new ? "cannot create" : "cannot open"));
  }

  std::unique_ptr<Mapping> map(const std::string& path) override {
    const PosixFile file(path, open_regular(path, O_RDONLY, "cannot open"));
    return std::make_unique<PosixMapping>(path, file.descriptor(),
                                          static_cast<std::size_t>(file.size()));
  }

  std::unique_ptr<Lock> lock(const std::string& path) override {
    Descriptor descriptor = open_regular(path, O_RDWR | O_CREAT, "cannot open");
    const int number = descriptor.number();
    auto held = std::make_unique<PosixLock>(std::move(descriptor));
    struct flock range{};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    // Of the open file, not of the process: two holders in one process exclude each other too.
    if (::fcntl(number, F_OFD_SETLK, &range) == 0) return held;
    if (errno == EAGAIN || errno == EACCES) return nullptr;
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) {
      throw NoLocks(path + ": cannot lock: " + std::strerror(errno));
    }
    fail(path, "cannot lock");
  }

  std::unique_ptr<Scratch> make_scratch(const std::string& folder, std::uint64_t bytes) override {
    if (!is_folder(folder))
      throw Error(folder + ": expected a folder for a scratch file, found none");
    auto file = std::make_unique<PosixFile>(folder, open_nameless(folder));
    const auto size = static_cast<off_t>(bytes);
    int error = EFBIG;
    if (size >= 0 && static_cast<std::uint64_t>(size) == bytes) {
      do error = bytes == 0 ? 0 : ::posix_fallocate(file->descriptor(), 0, size);
      while (error == EINTR);
    }
    if (error == ENOSPC || error == EFBIG || error == EDQUOT) {
      throw Error(no_room_text(folder, "a scratch file of ", bytes, free_bytes(folder)) +
                  (error == ENOSPC ? "" : std::string(": ") + std::strerror(error)));
    }
    if (error != 0) {
      errno = error;
      fail(folder, "cannot take room for a scratch file");
    }
    return std::make_unique<PosixScratch>(std::move(file), folder, static_cast<std::size_t>(bytes));
  }

  std::optional<std::uint64_t> free_bytes(const std::string& folder) override {
    struct statvfs disk{};
    if (::statvfs(folder.c_str(), &disk) != 0) return std::nullopt;
    return std::uint64_t{disk.f_bavail} * disk.f_frsize;
  }

  void rename(const std::string& from, const std::string& to) override {
    // The name of a device or FIFO is not ours to give away, though the system would allow it.
    const std::string kind = other_kind(to);
    if (!kind.empty() && kind != "a folder") {
      throw Error(to + ": expected a regular file to replace, got " + kind);
    }
    if (::rename(from.c_str(), to.c_str()) != 0) fail(to, "cannot rename to it");
  }
  void rename_new(const std::string& from, const std::string& to) override {
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) fail(to, "cannot rename to it");
    rename_new_by_link(from, to);
  }
  void exchange(const std::string& one, const std::string& other) override {
    if (::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0) return;
    if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) {
      throw Error(other +
                  ": expected a file system that can exchange two folders in one step "
                  "(RENAME_EXCHANGE), got one that cannot");
    }
    fail(other, "cannot exchange it");
  }
  void link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) != 0) fail(to, "cannot link to it");
  }
  void unlink(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) fail(path, "cannot remove");
  }
  void remove_tree(const std::string& path, const std::string& first) override {
    remove_posix_tree(path, first);
  }
  void remove_folder(const std::string& path) override {
    if (::rmdir(path.c_str()) != 0) fail(path, "cannot remove");
  }
  void make_folder(const std::string& path) override {
    if (::mkdir(path.c_str(), 0755) != 0) fail(path, "cannot make the folder");
  }
  void sync_folder(const std::string& path) override {
    const Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) fail(path, "cannot open");
    if (::fsync(folder.number()) != 0) fail(path, "cannot sync");
  }
  std::vector<std::string> list(const std::string& folder) override {
    std::vector<std::string> names =
        names_in(Descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), folder);
    std::sort(names.begin(), names.end());
    return names;
  }
  bool exists(const std::string& path) override {
    struct stat status{};
    return ::lstat(path.c_str(), &status) == 0;
  }
  bool is_link(const std::string& path) override {
    struct stat status{};
    return ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
  }
  bool is_folder(const std::string& path) override {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  }
};

}  // namespace

FileSystem& posix() {
  static PosixFileSystem instance;
  return instance;
}

}  // namespace memlayers::io

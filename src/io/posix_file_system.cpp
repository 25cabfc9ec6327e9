// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
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

#include "io/file_system.h"
#include "io/mapped_read.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int error = errno;
  if (error == ENOENT) throw NotFound(path + ": " + what + ": " + std::strerror(error));
  if (error == ENOSPC) throw Error(path + ": " + what + ": disk full");
  throw Error(path + ": " + what + ": " + std::strerror(error));
}

// The whole pages in which the bytes lie.
std::span<std::byte> pages_of(std::span<const std::byte> bytes) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t before = begin % page;
  return {const_cast<std::byte*>(bytes.data() - before), bytes.size() + before};
}

class PosixFile final : public File {
 public:
  PosixFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  ~PosixFile() override { ::close(descriptor_); }
  PosixFile(const PosixFile&) = delete;
  PosixFile& operator=(const PosixFile&) = delete;

  void pread(std::span<std::byte> out, std::uint64_t offset) const override {
    while (!out.empty()) {
      const ssize_t n = ::pread(descriptor_, out.data(), out.size(), static_cast<off_t>(offset));
      if (n < 0) {
        if (errno == EINTR) continue;
        fail(path_, "cannot read");
      }
      if (n == 0) {
        throw Error(path_ + ": expected " + std::to_string(out.size()) + " bytes more at offset " +
                    std::to_string(offset) + ", got the end of the file");
      }
      out = out.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
  }

  void pwrite(std::span<const std::byte> data, std::uint64_t offset) override {
    while (!data.empty()) {
      const auto part = data.first(std::min(data.size(), kPart));
      if (part.size() < data.size()) {
        // The bytes may lie in a mapped file: have the next part read while this one is written.
        const auto next = pages_of(data.subspan(part.size(), std::min(data.size() - kPart, kPart)));
        ::madvise(next.data(), next.size(), MADV_WILLNEED);
      }
      const ssize_t n = ::pwrite(descriptor_, part.data(), part.size(), static_cast<off_t>(offset));
      if (n < 0) {
        if (errno == EINTR) continue;
        fail(path_, "cannot write");
      }
      if (n == 0) throw Error(path_ + ": cannot write: the system took no bytes");
      data = data.subspan(static_cast<std::size_t>(n));
      offset += static_cast<std::uint64_t>(n);
    }
  }

  void sync() override {
    if (::fdatasync(descriptor_) != 0) fail(path_, "cannot sync");
  }

  void drop_cache() override { ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED); }

  int descriptor() const { return descriptor_; }
  std::uint64_t size() const override {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) fail(path_, "cannot stat");
    return static_cast<std::uint64_t>(status.st_size);
  }

 private:
  static constexpr std::size_t kPart = 32 << 20;
  std::string path_;
  int descriptor_;
};

class PosixLock final : public Lock {
 public:
  explicit PosixLock(int descriptor) : descriptor_(descriptor) {}
  ~PosixLock() override { ::close(descriptor_); }
  PosixLock(const PosixLock&) = delete;
  PosixLock& operator=(const PosixLock&) = delete;

 private:
  int descriptor_;
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
int open_nameless(const std::string& folder) {
  int descriptor = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor >= 0) return descriptor;
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) {
    fail(folder, "cannot make a scratch file in it");
  }
  std::string path = join(folder, "memlayers-scratch-XXXXXX");  // not every disk has O_TMPFILE
  descriptor = ::mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0) fail(folder, "cannot make a scratch file in it");
  ::unlink(path.c_str());
  return descriptor;
}

std::string gigabytes(std::uint64_t bytes) {
  return std::to_string(bytes / 1'000'000'000) + "." + std::to_string(bytes / 100'000'000 % 10) +
         " GB";
}

class PosixFileSystem final : public FileSystem {
 public:
  std::unique_ptr<File> open(const std::string& path, OpenMode mode) override {
    int flags = O_RDONLY | O_CLOEXEC;
    if (mode == OpenMode::kCreate) flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
    if (mode == OpenMode::kReadWrite) flags = O_RDWR | O_CLOEXEC;
    const int descriptor = ::open(path.c_str(), flags, 0644);
    if (descriptor < 0) fail(path, mode == OpenMode::kCreate ? "cannot create" : "cannot open");
    auto file = std::make_unique<PosixFile>(path, descriptor);
    struct stat status{};
    if (::fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
      throw Error(path + ": expected a file, got a folder");
    }
    return file;
  }

  std::unique_ptr<Mapping> map(const std::string& path) override {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(path, "cannot open");
    const PosixFile file(path, descriptor);
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) fail(path, "cannot stat");
    if (!S_ISREG(status.st_mode)) throw Error(path + ": expected a regular file");
    return std::make_unique<PosixMapping>(path, descriptor,
                                          static_cast<std::size_t>(status.st_size));
  }

  std::unique_ptr<Lock> lock(const std::string& path) override {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) fail(path, "cannot open");
    auto held = std::make_unique<PosixLock>(descriptor);
    struct flock range{};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    // Of the open file, not of the process: two holders in one process exclude each other too.
    if (::fcntl(descriptor, F_OFD_SETLK, &range) == 0) return held;
    if (errno != EAGAIN && errno != EACCES) fail(path, "cannot lock");
    return nullptr;
  }

  std::unique_ptr<Scratch> make_scratch(const std::string& folder, std::uint64_t bytes) override {
    if (!is_folder(folder))
      throw Error(folder + ": expected a folder for a scratch file, found none");
    auto file = std::make_unique<PosixFile>(folder, open_nameless(folder));
    struct statvfs disk{};
    const bool is_known = ::fstatvfs(file->descriptor(), &disk) == 0;
    const auto size = static_cast<off_t>(bytes);
    int error = EFBIG;
    if (size >= 0 && static_cast<std::uint64_t>(size) == bytes) {
      do error = bytes == 0 ? 0 : ::posix_fallocate(file->descriptor(), 0, size);
      while (error == EINTR);
    }
    if (error == ENOSPC || error == EFBIG || error == EDQUOT) {
      const std::uint64_t room = std::uint64_t{disk.f_bavail} * disk.f_frsize;
      throw Error(folder + ": expected room for a scratch file of " + gigabytes(bytes) + " (" +
                  std::to_string(bytes) + " bytes), got " +
                  (is_known ? gigabytes(room) + " (" + std::to_string(room) + " bytes)" : "less") +
                  (error == ENOSPC ? "" : std::string(": ") + std::strerror(error)));
    }
    if (error != 0) {
      errno = error;
      fail(folder, "cannot take room for a scratch file");
    }
    return std::make_unique<PosixScratch>(std::move(file), folder, static_cast<std::size_t>(bytes));
  }

  void rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) fail(to, "cannot rename to it");
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
  void remove_folder(const std::string& path) override {
    if (::rmdir(path.c_str()) != 0) fail(path, "cannot remove");
  }
  void make_folder(const std::string& path) override {
    if (::mkdir(path.c_str(), 0755) != 0) fail(path, "cannot make the folder");
  }
  void sync_folder(const std::string& path) override {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) fail(path, "cannot open");
    const PosixFile folder(path, descriptor);
    if (::fsync(descriptor) != 0) fail(path, "cannot sync");
  }
  std::vector<std::string> list(const std::string& folder) override {
    DIR* stream = ::opendir(folder.c_str());
    if (stream == nullptr) fail(folder, "cannot list");
    std::vector<std::string> names;
    errno = 0;  // readdir tells an error from the end by it alone
    while (const dirent* entry = ::readdir(stream)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
      errno = 0;
    }
    const int error = errno;
    ::closedir(stream);
    errno = error;
    if (error != 0) fail(folder, "cannot list");
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

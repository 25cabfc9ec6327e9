// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/file_system.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int error = errno;
  if (error == ENOSPC) throw Error(path + ": " + what + ": disk full");
  throw Error(path + ": " + what + ": " + std::strerror(error));
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
      const ssize_t n = ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(offset));
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

  std::uint64_t size() const override {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) fail(path_, "cannot stat");
    return static_cast<std::uint64_t>(status.st_size);
  }

 private:
  std::string path_;
  int descriptor_;
};

class PosixMapping final : public Mapping {
 public:
  PosixMapping(const std::string& path, int descriptor, std::size_t size) : size_(size) {
    if (size == 0) return;  // mmap refuses nothing; an empty span needs none
    data_ = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data_ == MAP_FAILED) fail(path, "cannot map");
  }
  ~PosixMapping() override {
    if (size_ > 0) ::munmap(data_, size_);
  }
  PosixMapping(const PosixMapping&) = delete;
  PosixMapping& operator=(const PosixMapping&) = delete;
  std::span<const std::byte> bytes() const override {
    return {static_cast<const std::byte*>(data_), size_};
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
};

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

  void rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) fail(to, "cannot rename to it");
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

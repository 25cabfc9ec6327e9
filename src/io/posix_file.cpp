// SPDX-License-Identifier: Apache-2.0
#include "io/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace memlayers::io {
namespace {

std::string kind_of(mode_t mode) {
  if (S_ISREG(mode)) return "";
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

}  // namespace

void fail(const std::string& path, const char* what) {
  const int error = errno;
  const std::string begin = path + ": " + what + ": ";
  if (error == ENOENT) throw NotFound(begin + std::strerror(error));
  if (error == EEXIST) throw Exists(begin + std::strerror(error));
  if (error == ENOSPC) throw Error(begin + "disk full");
  if (error == EFBIG) {
    throw Error(begin + "larger than this process (ulimit -f) or the file system allows a file");
  }
  throw Error(begin + std::strerror(error));
}

std::string other_kind(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 ? kind_of(status.st_mode) : "";
}

Descriptor open_regular(const std::string& path, int flags, const char* what) {
  const auto refuse = [&](const std::string& kind) {
    throw Error(path + ": expected a regular file, got " + kind);
  };
  Descriptor descriptor(::open(path.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644));
  if (!descriptor) {
    const int error = errno;
    // A socket cannot be opened, nor a folder for writing.
    if (error == ENXIO || error == EISDIR) {
      if (const std::string kind = other_kind(path); !kind.empty()) refuse(kind);
    }
    errno = error;
    fail(path, what);
  }
  struct stat status{};
  if (::fstat(descriptor.number(), &status) != 0) fail(path, "cannot stat");
  if (const std::string kind = kind_of(status.st_mode); !kind.empty()) refuse(kind);
  return descriptor;
}

std::span<std::byte> pages_of(std::span<const std::byte> bytes) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t before = begin % page;
  return {const_cast<std::byte*>(bytes.data() - before), bytes.size() + before};
}

void rename_new_by_link(const std::string& from, const std::string& to) {
  if (other_kind(from) != "a folder") {
    if (::link(from.c_str(), to.c_str()) != 0) fail(to, "cannot rename to it");
    if (::unlink(from.c_str()) != 0) fail(from, "cannot remove");
    return;
  }
  // A folder has one name. rename() replaces an empty folder at most: nothing is lost.
  struct stat status{};
  errno = EEXIST;
  if (::lstat(to.c_str(), &status) == 0 || ::rename(from.c_str(), to.c_str()) != 0) {
    fail(to, "cannot rename to it");
  }
}

PosixFile::PosixFile(std::string path, Descriptor descriptor)
    : path_(std::move(path)), descriptor_(std::move(descriptor)) {
  outlive_file_size_limit();
}

void PosixFile::pread(std::span<std::byte> out, std::uint64_t offset) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(descriptor(), out.data(), out.size(), static_cast<off_t>(offset));
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

void PosixFile::pwrite(std::span<const std::byte> data, std::uint64_t offset) {
  constexpr std::size_t kPart = 32 << 20;
  while (!data.empty()) {
    const auto part = data.first(std::min(data.size(), kPart));
    if (part.size() < data.size()) {
      // The bytes may lie in a mapped file: have the next part read while this one is written.
      const auto next = pages_of(data.subspan(part.size(), std::min(data.size() - kPart, kPart)));
      ::madvise(next.data(), next.size(), MADV_WILLNEED);
    }
    const ssize_t n = ::pwrite(descriptor(), part.data(), part.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      fail(path_, "cannot write");
    }
    if (n == 0) throw Error(path_ + ": cannot write: the system took no bytes");
    data = data.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

void PosixFile::sync() {
  if (::fdatasync(descriptor()) != 0) fail(path_, "cannot sync");
}

void PosixFile::drop_cache() { ::posix_fadvise(descriptor(), 0, 0, POSIX_FADV_DONTNEED); }

std::uint64_t PosixFile::size() const {
  struct stat status{};
  if (::fstat(descriptor(), &status) != 0) fail(path_, "cannot stat");
  return static_cast<std::uint64_t>(status.st_size);
}

std::vector<std::string> names_in(Descriptor folder, const std::string& path) {
  DIR* stream = folder ? ::fdopendir(folder.number()) : nullptr;
  if (stream == nullptr) fail(path, "cannot list");
  folder.release();  // the stream's now
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
  if (error != 0) fail(path, "cannot list");
  return names;
}

namespace {

Descriptor open_folder_at(int folder, const char* name) {
  return Descriptor(::openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

void unlink_at(int folder, const std::string& name, int flags, const std::string& path) {
  if (::unlinkat(folder, name.c_str(), flags) != 0 && errno != ENOENT) fail(path, "cannot remove");
}

// `path` is what errors say.
void remove_at(int folder, const std::string& name, const std::string& path,
               const std::string& first) {
  const Descriptor inner = open_folder_at(folder, name.c_str());
  if (!inner) {
    if (errno == ENOENT) return;
    // What is no folder, or a link to one, is one name to remove.
    if (errno != ENOTDIR && errno != ELOOP) fail(path, "cannot remove");
    return unlink_at(folder, name, 0, path);
  }
  if (!first.empty()) unlink_at(inner.number(), first, 0, join(path, first));
  for (const std::string& each : names_in(open_folder_at(inner.number(), "."), path)) {
    remove_at(inner.number(), each, join(path, each), "");
  }
  unlink_at(folder, name, AT_REMOVEDIR, path);
}

}  // namespace

void remove_posix_tree(const std::string& path, const std::string& first) {
  std::string whole = path;
  while (whole.size() > 1 && whole.back() == '/') whole.pop_back();
  const std::string name = whole.substr(whole.find_last_of('/') + 1);
  if (name.empty() || name == "." || name == "..") {
    throw Error(path + ": expected the name of a file or folder to remove");
  }
  // Links on the way to the folder are the caller's choice; only from there on none is followed.
  const std::string folder = parent(whole);
  const Descriptor place(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!place) {
    if (errno == ENOENT) return;
    fail(path, "cannot remove");
  }
  remove_at(place.number(), name, whole, first);
}

}  // namespace memlayers::io

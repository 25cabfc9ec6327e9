// SPDX-License-Identifier: Apache-2.0
// The one door to the disk. Everything that reads or writes a file takes a FileSystem, so that a
// test can make any call fail, tear or stop. All functions throw Error naming the path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memlayers/error.h"

namespace memlayers::io {

// There is no file of that name (any more).
class NotFound : public Error {
 public:
  using Error::Error;
};

// There is something of that name, where there should be nothing.
class Exists : public Error {
 public:
  using Error::Error;
};

// The file system knows no locks.
class NoLocks : public Error {
 public:
  using Error::Error;
};

// A read-only view of a whole file; unmapped on destruction. Bytes may be read from any thread.
class Mapping {
 public:
  virtual ~Mapping() = default;
  virtual std::span<const std::byte> bytes() const = 0;
  // The part is not needed in memory for now; reading it again is fine, and may wait for the disk.
  virtual void release(std::span<const std::byte> /*part*/) const {}
};

// Zero-filled bytes of a file without a name, to be read and written from any threads. What they
// hold ends with this object, and with the process however that ends.
class Scratch {
 public:
  virtual ~Scratch() = default;
  virtual std::span<std::byte> bytes() const = 0;
  // Starts writing to the disk what was changed, without waiting for it: a system that is short of
  // memory then finds pages that it can take back at once.
  virtual void write_back() const {}
};

// An open file. Not for use from several threads at once, but pread is.
class File {
 public:
  virtual ~File() = default;
  // Reads exactly out.size() bytes at `offset`; throws Error at end of file.
  virtual void pread(std::span<std::byte> out, std::uint64_t offset) const = 0;
  // Writes all of `data` at `offset`, growing the file where needed.
  virtual void pwrite(std::span<const std::byte> data, std::uint64_t offset) = 0;
  // fdatasync: after it returns the data survive a power loss. Once it failed they may be lost
  // although a later call succeeds. A file opened for reading can be synced too.
  virtual void sync() = 0;
  // Forgets what memory holds of the file and is on the disk already, so that the next read tells
  // what the disk holds. A wish: the system may keep what others use.
  virtual void drop_cache() {}
  virtual std::uint64_t size() const = 0;
};

// Held until its destruction, or until the process ends in whatever way.
class Lock {
 public:
  virtual ~Lock() = default;
};

enum class OpenMode { kRead, kCreate /* must not exist */, kReadWrite /* must exist */ };

// Only regular files are opened and mapped: a FIFO, device, socket or folder is an Error that says
// so, at once. (What a user may name instead of a file: io/streams.h.)
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual std::unique_ptr<File> open(const std::string& path, OpenMode mode) = 0;
  virtual std::unique_ptr<Mapping> map(const std::string& path) = 0;
  // The one write lock of a file, which is made where there is none; null while another holds it.
  // Throws NoLocks where the file system has none.
  virtual std::unique_ptr<Lock> lock(const std::string& path);
  // All of the room is taken now, so that no later write to it finds the disk full. Throws Error
  // naming the folder, the bytes wanted and those there are.
  virtual std::unique_ptr<Scratch> make_scratch(const std::string& folder, std::uint64_t bytes);
  virtual void rename(const std::string& from, const std::string& to) = 0;
  // The same where nothing may be at `to`; throws Exists where something is, whenever it came.
  virtual void rename_new(const std::string& from, const std::string& to);
  // A file, or a folder with all that is in it, following no link; absent is fine. Of what is in
  // the folder `first` is removed before all else, unless it is "".
  virtual void remove_tree(const std::string& path, const std::string& first);
  // What users may still write to the disk on which the folder lies; none where that is unknown.
  virtual std::optional<std::uint64_t> free_bytes(const std::string& folder);
  virtual void unlink(const std::string& path) = 0;         // a file
  virtual void remove_folder(const std::string& path) = 0;  // an empty folder
  virtual void make_folder(const std::string& path) = 0;    // parents must exist
  virtual void sync_folder(const std::string& path) = 0;    // makes renames and creations durable
  virtual std::vector<std::string> list(const std::string& folder) = 0;  // names, sorted
  virtual bool exists(const std::string& path) = 0;
  virtual bool is_folder(const std::string& path) = 0;  // or a link to one
  virtual bool is_link(const std::string& path);        // false, unless overridden
  // Swaps two names of one folder in one step: whoever looks finds each of them, before or after.
  // Throws Error where the file system cannot.
  virtual void exchange(const std::string& one, const std::string& other);
  // The same file under another name as well, which must not exist; of a link, the link. Throws
  // Error where the file system cannot.
  virtual void link(const std::string& from, const std::string& to);
};

FileSystem& posix();  // the real one

// Helpers over any FileSystem.
std::string read_text(FileSystem& fs, const std::string& path);  // whole file
void make_folders(FileSystem& fs, const std::string& path);      // with parents
// remove_tree(): the one way in which folders are removed.
void remove_all(FileSystem& fs, const std::string& path, const std::string& first = "");
void copy_file(FileSystem& fs, const std::string& from, const std::string& to);  // and sync
// Asked before much is written: throws Error naming the folder, the bytes wanted and those there
// are, where the disk has no room for so many. `folder` may not be there yet.
void ask_for_room(FileSystem& fs, const std::string& folder, std::uint64_t bytes);
std::string no_room_text(const std::string& folder, const std::string& what, std::uint64_t bytes,
                         std::optional<std::uint64_t> free);
// Replaces `path` whole or not at all: temporary name, sync, rename, sync of the folder.
void write_atomic(FileSystem& fs, const std::string& path, std::string_view data);
std::string join(std::string_view folder, std::string_view name);
std::string parent(const std::string& path);  // its folder: "." for a bare name

}  // namespace memlayers::io

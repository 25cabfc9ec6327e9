// SPDX-License-Identifier: Apache-2.0
// Files of the system, opened without waiting and without believing what they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/descriptor.h"
#include "io/file_system.h"

namespace memlayers::io {

// Throws Error (NotFound, Exists) of errno: "<path>: <what>: <why>".
[[noreturn]] void fail(const std::string& path, const char* what);

// What there is instead of a regular file: "a folder", "a FIFO", "a device", "a socket"; "" for a
// regular file, or for none that can be looked at. Follows links.
std::string other_kind(const std::string& path);

// Opens a regular file; throws Error that says what else it is: a FIFO would be waited for, and
// what a device does nobody knows. `flags` as of open().
Descriptor open_regular(const std::string& path, int flags, const char* what);

// FileSystem::rename_new() where the system has no such call.
void rename_new_by_link(const std::string& from, const std::string& to);

class PosixFile final : public File {
 public:
  PosixFile(std::string path, Descriptor descriptor);
  void pread(std::span<std::byte> out, std::uint64_t offset) const override;
  void pwrite(std::span<const std::byte> data, std::uint64_t offset) override;
  void sync() override;
  void drop_cache() override;
  std::uint64_t size() const override;
  int descriptor() const { return descriptor_.number(); }

 private:
  std::string path_;
  Descriptor descriptor_;
};

// The whole pages in which the bytes lie.
std::span<std::byte> pages_of(std::span<const std::byte> bytes);

// What a folder holds, in no order. Throws Error of errno for a `folder` that could not be opened;
// `path` is what it is called there.
std::vector<std::string> names_in(Descriptor folder, const std::string& path);

// Removes a file, a link, or a folder with all that is in it, following no link on the way down,
// whatever others do meanwhile. In the folder `first` goes before all else, if it is not empty.
// What is not there is fine.
void remove_posix_tree(const std::string& path, const std::string& first);

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// A folder that is there whole or not at all: written under a temporary name, closed by a manifest
// (sizes and XXH3 checksums, written last), synced and renamed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/temporary.h"

namespace memlayers::io {

std::uint64_t xxh3(std::span<const std::byte> data);
std::string xxh3_hex(std::span<const std::byte> data);      // 16 lower-case hex digits
std::string xxh3_128_hex(std::span<const std::byte> data);  // XXH3-128, 32 of them

struct ManifestEntry {
  std::uint64_t size;
  std::string xxh3;
};
ManifestEntry entry_of(FileSystem& fs, const std::string& path);  // reads the file

// Files of a folder and of the folders in it, as "name" or "folder/name", without its manifest.
std::vector<std::string> files_in(FileSystem& fs, const std::string& folder);

// Collects files in a folder with a temporary name (io/temporary.h); commit() writes MANIFEST.json,
// syncs, renames to `path` and syncs the parent. Nothing may be at `path`: throws Exists where
// something is, also when it came meanwhile. Destroyed without commit, or when anything throws, it
// removes what it wrote.
//
// One that takes the place of a folder collects under `<path>.next-<process>-<8 hex digits>` and
// exchanges the two in one step; what was there is then removed. The caller keeps others from doing
// the same: what is found under such names, killed processes left.
class FolderWriter {
 public:
  enum class Place { kNew, kOfAFolder };
  FolderWriter(FileSystem& fs, std::string path, Place place = Place::kNew);
  ~FolderWriter();
  FolderWriter(const FolderWriter&) = delete;
  FolderWriter& operator=(const FolderWriter&) = delete;
  // The place to write a file named `name` (may hold one "/"); its folder exists on return.
  std::string file(const std::string& name);
  void write_text(const std::string& name, std::string_view text);  // and sync
  // Of a file that is there: commit() reads all others.
  void add(const std::string& name, ManifestEntry entry);
  void commit();

 private:
  FileSystem& fs_;
  std::string path_;
  const bool replaces_;
  TemporaryName name_;
  std::string temporary_;  // its path
  std::map<std::string, ManifestEntry> entries_;
  bool committed_ = false;
};

// All leave out pool/ once a store has edited it (pool/CURRENT): its log answers for that.
bool is_complete(FileSystem& fs, const std::string& folder);  // MANIFEST.json parses and sizes hold
// Reads every file again and compares; throws Error naming the first file that is missing, of
// another size, or altered. Of several that verify a folder together each reads a share.
struct Share {
  int index = 0, of = 1;
};
void verify_folder(FileSystem& fs, const std::string& folder, Share share = {});
std::map<std::string, ManifestEntry> read_manifest(FileSystem& fs, const std::string& folder);

}  // namespace memlayers::io

// SPDX-License-Identifier: Apache-2.0
// What a Store is made of.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "io/file_system.h"
#include "memlayers/store.h"
#include "pool/commits.h"

namespace memlayers::pool {

struct StoreParts {
  // Takes the folder's lock, recovers what its log says, and deletes what nobody needs.
  StoreParts(io::FileSystem& fs, std::string folder, const StoreOptions& options);

  std::string path(const std::string& name) const { return io::join(folder, name); }

  io::FileSystem& fs;
  const std::string folder;
  const StoreOptions options;
  std::unique_ptr<io::Lock> lock;
  Commits commits;
  std::mutex maintenance;  // one growth or compaction at a time; locked before what commits lock
};

// As Store::open() and StoreReader::open(), over any file system.
Store open_store(io::FileSystem& fs, const std::string& folder, const StoreOptions& options = {});
StoreReader open_reader(io::FileSystem& fs, const std::string& folder,
                        const StoreOptions& options = {});

}  // namespace memlayers::pool

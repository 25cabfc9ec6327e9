// SPDX-License-Identifier: Apache-2.0
#include "pool/store_parts.h"

#include <set>
#include <utility>

#include "io/temporary.h"
#include "memlayers/error.h"
#include "pool/log_follower.h"

namespace memlayers::pool {
namespace {

constexpr const char* kLock = "LOCK";

std::unique_ptr<io::Lock> lock_of(io::FileSystem& fs, const std::string& folder) {
  if (!fs.is_folder(folder)) throw Error(folder + ": expected the folder of a pool, found none");
  const std::string path = io::join(folder, kLock);
  auto lock = fs.lock(path);
  if (lock != nullptr) return lock;
  throw Error(path + ": expected no other writer of this pool, found one at work");
}

// What a writer that was killed left: files of ours that the log does not name.
bool is_ours(const std::string& name) {
  const auto is = [&](const std::string& stem, const std::string& end) {
    return name.starts_with(stem) && name.ends_with(end);
  };
  return is("seg-", ".safetensors") || is("chunk-", ".safetensors") || is("seg-", ".tmp") ||
         is("chunk-", ".tmp") || is("log-", ".tmp") || log_number(name) != 0 ||
         !io::process_of_temporary(name, kCurrent).empty();
}

}  // namespace

StoreParts::StoreParts(io::FileSystem& the_fs, std::string the_folder,
                       const StoreOptions& the_options)
    : fs(the_fs),
      folder(std::move(the_folder)),
      options(the_options),
      lock(lock_of(fs, folder)),
      commits(fs, folder, options) {
  if (!commits.has_log()) return;
  const std::set<std::string> needed = commits.files();
  for (const std::string& name : fs.list(folder)) {
    if (!needed.contains(name) && is_ours(name)) commits.remove(name);
  }
}

Store open_store(io::FileSystem& fs, const std::string& folder, const StoreOptions& options) {
  return Store(std::make_unique<StoreParts>(fs, folder, options));
}

StoreReader open_reader(io::FileSystem& fs, const std::string& folder,
                        const StoreOptions& options) {
  return StoreReader(std::make_unique<LogFollower>(fs, folder, options));
}

}  // namespace memlayers::pool

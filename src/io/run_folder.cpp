// SPDX-License-Identifier: Apache-2.0
#include "io/run_folder.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "io/folder.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers {
namespace io {

std::vector<FoundCheckpoint> find_closed_checkpoints(FileSystem& files,
                                                     const std::string& run_folder) {
  std::vector<FoundCheckpoint> found;
  if (!files.is_folder(run_folder)) return found;
  for (const std::string& name : files.list(run_folder)) {
    std::int64_t step = 0;
    if (!name.starts_with("step-")) continue;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + 5, end, step);
    if (error != std::errc{} || rest != end || step < 0) continue;
    const std::string path = join(run_folder, name);
    if (files.exists(join(path, "MANIFEST.json"))) found.push_back({.step = step, .path = path});
  }
  std::ranges::sort(found, {}, &FoundCheckpoint::step);
  return found;
}

std::vector<FoundCheckpoint> find_checkpoints(FileSystem& files, const std::string& run_folder) {
  std::vector<FoundCheckpoint> found = find_closed_checkpoints(files, run_folder);
  std::erase_if(found, [&](const FoundCheckpoint& one) { return !is_complete(files, one.path); });
  return found;
}

std::string set_aside(FileSystem& files, const std::string& checkpoint) {
  std::string name = checkpoint + ".damaged";
  for (int i = 2; files.exists(name); ++i) name = checkpoint + ".damaged-" + std::to_string(i);
  files.rename(checkpoint, name);
  files.sync_folder(parent(checkpoint));
  return name;
}

void remove_old_checkpoints(FileSystem& files, const std::string& run_folder, std::int64_t keep) {
  const std::vector<FoundCheckpoint> found = find_checkpoints(files, run_folder);
  const auto count = static_cast<std::int64_t>(found.size());
  if (count <= keep) return;
  verify_folder(files, found.back().path);
  for (std::int64_t i = 0; i < count - keep; ++i) {
    // Without its manifest it is no checkpoint: a crash while removing leaves none that looks
    // whole.
    const std::string& path = found[static_cast<std::size_t>(i)].path;
    files.unlink(join(path, "MANIFEST.json"));
    remove_all(files, path);
  }
}

void remove_unfinished_checkpoints(FileSystem& files, const std::string& run_folder) {
  for (const std::string& name : files.list(run_folder)) {
    if (name.starts_with("step-") && name.find(".tmp-") != std::string::npos) {
      remove_all(files, join(run_folder, name));
    }
  }
}

}  // namespace io

std::vector<std::string> list_checkpoints(const std::string& run_folder) {
  std::vector<std::string> paths;
  for (io::FoundCheckpoint& found : io::find_checkpoints(io::posix(), run_folder)) {
    paths.push_back(std::move(found.path));
  }
  return paths;
}

std::string resolve_model_folder(const std::string& path) {
  io::FileSystem& files = io::posix();
  if (!files.exists(path)) throw Error(path + ": no such file or folder; wanted a model folder");
  if (files.exists(io::join(path, "config.json"))) return path;
  const std::vector<std::string> checkpoints = list_checkpoints(path);
  if (checkpoints.empty()) {
    throw Error(path +
                ": no model here: found neither a config.json nor a complete checkpoint step-N");
  }
  return checkpoints.back();
}

}  // namespace memlayers

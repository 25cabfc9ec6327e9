// SPDX-License-Identifier: Apache-2.0
#include "io/run_folder.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "io/folder.h"
#include "io/model_source.h"
#include "io/shown.h"
#include "io/temporary.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers {
namespace io {

namespace {

constexpr const char* kLock = "LOCK";

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return "process " + std::to_string(::getpid()) + " on " + host.data();
}

// As the process that has the lock wrote it; a moment after it got it.
std::string holder_of(FileSystem& files, const std::string& path) {
  try {
    const std::string text = read_text(files, path);
    if (const std::size_t end = text.find('\n'); end != std::string::npos && end < 300) {
      return shown(text.substr(0, end));
    }
  } catch (const Error&) {  // it is there, whatever it is called
  }
  return "another process";
}

}  // namespace

std::unique_ptr<Lock> lock_run(FileSystem& files, const std::string& run_folder) {
  make_folders(files, run_folder);
  const std::string path = join(run_folder, kLock);
  auto lock = files.lock(path);
  if (lock == nullptr) {
    throw Error(run_folder + ": expected no other training that writes here, found that of " +
                holder_of(files, path) + "; out names another folder");
  }
  const std::string text = this_process() + "\n";
  files.open(path, OpenMode::kReadWrite)->pwrite(std::as_bytes(std::span(text)), 0);
  return lock;
}

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
  files.rename_new(checkpoint, name);
  files.sync_folder(parent(checkpoint));
  return name;
}

std::vector<FoundCheckpoint> find_own_checkpoints(FileSystem& files,
                                                  const std::string& run_folder) {
  std::vector<FoundCheckpoint> found = find_checkpoints(files, run_folder);
  std::erase_if(found, [&](const FoundCheckpoint& one) { return files.is_link(one.path); });
  return found;
}

void remove_old_checkpoints(FileSystem& files, const std::string& run_folder, std::int64_t keep) {
  const std::vector<FoundCheckpoint> found = find_own_checkpoints(files, run_folder);
  const auto count = static_cast<std::int64_t>(found.size());
  if (count <= keep) return;
  verify_folder(files, found.back().path);
  for (std::int64_t i = 0; i < count - keep; ++i) {
    // Without its manifest it is no checkpoint: a crash while removing leaves none that looks
    // whole.
    remove_all(files, found[static_cast<std::size_t>(i)].path, "MANIFEST.json");
  }
}

namespace {

// <stem>.tmp-<process>-<digits>, and <stem>.tmp-<process> as earlier versions called folders.
bool is_temporary(const std::string& name, const std::string& stem) {
  if (!process_of_temporary(name, stem).empty()) return true;
  const std::string begin = stem + ".tmp-";
  return name.starts_with(begin) && name.size() > begin.size() &&
         name.find_first_not_of("0123456789", begin.size()) == std::string::npos;
}

}  // namespace

void remove_unfinished_checkpoints(FileSystem& files, const std::string& run_folder) {
  for (const std::string& name : files.list(run_folder)) {
    const std::size_t end = name.find(".tmp-");
    if (end == std::string::npos) continue;
    const std::string stem = name.substr(0, end);
    const bool is_step = stem.starts_with("step-") && stem.size() > 5 &&
                         stem.find_first_not_of("0123456789", 5) == std::string::npos;
    if ((is_step || stem == "report.html" || stem == "metrics.jsonl" || stem == "samples.jsonl") &&
        is_temporary(name, stem)) {
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
  if (io::is_model(files, path)) return path;
  const std::vector<std::string> checkpoints = list_checkpoints(path);
  if (checkpoints.empty()) {
    throw Error(path +
                ": no model here: found neither a config.json nor a complete checkpoint step-N");
  }
  return checkpoints.back();
}

}  // namespace memlayers

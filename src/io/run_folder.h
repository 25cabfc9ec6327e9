// SPDX-License-Identifier: Apache-2.0
// The folder of a training run: complete checkpoints step-N, and what killed runs left behind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::io {

// The run folder, which is made where there is none, for one training at a time; until destruction.
// Throws Error that names the process that has it, and NoLocks where the file system has none.
std::unique_ptr<Lock> lock_run(FileSystem& files, const std::string& run_folder);

// Complete checkpoints of a run folder with their steps, oldest first.
struct FoundCheckpoint {
  std::int64_t step;
  std::string path;
};
std::vector<FoundCheckpoint> find_checkpoints(FileSystem& files, const std::string& run_folder);
// Those that once were complete: with a manifest, which may no longer hold. (Removing one begins
// with its manifest.)
std::vector<FoundCheckpoint> find_closed_checkpoints(FileSystem& files,
                                                     const std::string& run_folder);

// Of the complete checkpoints those that lie here: a link to another place is the user's, and is
// neither counted nor removed where old ones are.
std::vector<FoundCheckpoint> find_own_checkpoints(FileSystem& files, const std::string& run_folder);
// Removes all of these but the `keep` newest, once the newest has been read again and found whole.
void remove_old_checkpoints(FileSystem& files, const std::string& run_folder, std::int64_t keep);

// Renames a damaged checkpoint to step-N.damaged, or step-N.damaged-2 and so on: nothing finds it
// there, and nothing is lost. Returns the new name.
std::string set_aside(FileSystem& files, const std::string& checkpoint);

// Removes what a run that was killed while it wrote left behind: temporary names of checkpoints and
// of files. The caller holds the run's lock.
void remove_unfinished_checkpoints(FileSystem& files, const std::string& run_folder);

}  // namespace memlayers::io

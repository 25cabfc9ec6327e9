// SPDX-License-Identifier: Apache-2.0
// The folder of a training run: complete checkpoints step-N, and what killed runs left behind.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace memlayers::io {

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

// Removes all but the `keep` newest checkpoints, once the newest has been read again and found
// whole.
void remove_old_checkpoints(FileSystem& files, const std::string& run_folder, std::int64_t keep);

// Renames a damaged checkpoint to step-N.damaged, or step-N.damaged-2 and so on: nothing finds it
// there, and nothing is lost. Returns the new name.
std::string set_aside(FileSystem& files, const std::string& checkpoint);

// Removes what a run that was killed while it wrote a checkpoint left behind: step-N.tmp-<process>.
void remove_unfinished_checkpoints(FileSystem& files, const std::string& run_folder);

}  // namespace memlayers::io

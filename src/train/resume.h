// SPDX-License-Identifier: Apache-2.0
// Where a run goes on from, and whether it may.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "memlayers/tokenizer.h"
#include "train/processes.h"
#include "train/run_checkpoint.h"

namespace memlayers::train {

struct ResumePoint {
  std::string folder;
  RunState state;
  // Later checkpoints of the run, which do not hold: the run will write others in their place.
  std::vector<std::string> damaged = {};
};

// The checkpoint that config.train.resume means ("auto", "never" or a folder), read again and found
// whole; absent: start anew. All processes call it together and find the same. Throws Error where
// it is damaged, naming the file and the newest of the others that is whole; where a folder named
// is no checkpoint; and where `out` holds complete checkpoints that the run would meet later: they
// are never overwritten.
std::optional<ResumePoint> find_resume_point(io::FileSystem& files, const TrainConfig& config,
                                             const Processes* processes = nullptr);

// Does what reads a checkpoint; an Error says in addition which checkpoint before it is whole.
void reading_checkpoint(io::FileSystem& files, const std::string& checkpoint,
                        const std::function<void()>& read);

// What data.across_documents of the checkpoint's run is: true for one from before it could be set.
bool attends_across_documents(const std::string& checkpoint);

// Throws Error naming the first field of [model] or [memory] in which the configuration differs
// from the one that the checkpoint was trained with, or has grown to.
void check_same_model(io::FileSystem& files, const TrainConfig& config,
                      const std::string& checkpoint);

}  // namespace memlayers::train

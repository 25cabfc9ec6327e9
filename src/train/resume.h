// SPDX-License-Identifier: Apache-2.0
// Where a run goes on from, and whether it may.
#pragma once

#include <optional>
#include <string>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "memlayers/tokenizer.h"
#include "train/run_checkpoint.h"

namespace memlayers::train {

struct ResumePoint {
  std::string folder;
  RunState state;
};

// The checkpoint that config.train.resume means ("auto", "never" or a folder), read again and found
// whole; absent: start anew. Throws Error where it is damaged, where a folder named is no
// checkpoint, and where `out` holds complete checkpoints that the run would meet later: they are
// never overwritten.
std::optional<ResumePoint> find_resume_point(io::FileSystem& files, const TrainConfig& config);

// Throws Error naming the first field of [model] or [memory] in which the configuration differs
// from the one that the checkpoint was trained with.
void check_same_model(const TrainConfig& config, const std::string& checkpoint);

}  // namespace memlayers::train

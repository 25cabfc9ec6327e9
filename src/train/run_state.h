// SPDX-License-Identifier: Apache-2.0
// trainer.json: where a run stood, and which processes wrote its checkpoint.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "io/file_system.h"
#include "memlayers/parallel.h"
#include "text/dataset.h"

namespace memlayers::train {

// The numbers that a resumed run goes on from.
struct RunState {
  std::int64_t step = 0;  // steps done
  text::BatchStream::Position position;
  std::string data;  // what the batches were made from; position holds for these only
  std::int64_t tokens = 0;
  double time_s = 0;
  std::int64_t bad_steps = 0, bad_in_a_row = 0;
  std::int64_t row_steps = 0;  // RowOptimizer::steps
  std::optional<double> loss, eval_loss, best_eval_loss;
};

// Who wrote a checkpoint: to be known, not needed to read it.
struct RunLayout {
  int processes = 1, groups = 1;
  PoolSplit split;                   // of each group's pool
  std::map<std::string, int> files;  // rank of the one that wrote each
};

// Version 1 had the state of all row optimizers in one file, or one for each process.
constexpr int kStateVersion = 2;

std::string state_json(const RunState& state, const RunLayout& layout);

// Reads trainer.json of a checkpoint. Throws Error where it is not one.
RunState load_run_state(io::FileSystem& files, const std::string& checkpoint);
int load_state_version(io::FileSystem& files, const std::string& checkpoint);

}  // namespace memlayers::train

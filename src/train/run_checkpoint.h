// SPDX-License-Identifier: Apache-2.0
// What a checkpoint holds beside the model folder: optimizer/dense.safetensors (state of DenseAdamW
// by name, "rng"), optimizer/rows.safetensors (state of RowAdamW, and the rows' usage; of a memory
// group one file a process, rows-<i>-of-<n>.safetensors),
// trainer.json (RunState), training.toml (the configuration), the tokenizer's file.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "memlayers/tokenizer.h"
#include "text/dataset.h"
#include "train/processes.h"

namespace memlayers::train {

// The numbers that a resumed run goes on from.
struct RunState {
  std::int64_t step = 0;  // steps done
  text::BatchStream::Position position;
  std::string data;  // what the batches were made from; position holds for these only
  std::int64_t tokens = 0;
  double time_s = 0;
  std::int64_t bad_steps = 0, bad_in_a_row = 0;
  std::int64_t row_steps = 0;  // RowAdamW::steps
  std::optional<double> loss, eval_loss, best_eval_loss;
};

struct RunParts {  // all that is saved and restored
  Llama model{nullptr};
  std::shared_ptr<const Tokenizer> tokenizer;
  DenseAdamW* dense = nullptr;
  RowAdamW* rows = nullptr;  // null without a pool
};

std::string checkpoint_path(const std::string& run_folder, std::int64_t step);

// Writes the folder, whole or not at all; it must not exist. Throws Error. All processes call it
// together: the first one writes all but the optimizers' state of the others' parts of the pool.
void save_checkpoint(io::FileSystem& files, const std::string& path, const TrainConfig& config,
                     const RunParts& parts, const RunState& state,
                     const Processes* processes = nullptr);
// [slots] int64: how often each was read by all processes, which call it together. Undefined in all
// but the first. Null: one process.
at::Tensor whole_usage(const RunParts& parts, const Processes* processes);

// Reads trainer.json. Throws Error where it is not one.
RunState load_run_state(io::FileSystem& files, const std::string& path);

// Restores optimizers, usage and torch's random generator (the model is loaded already; rows that
// lag are set back to where they lagged). Throws Error naming file and tensor where the checkpoint
// is of another shape or another optimizer's.
void load_optimizers(io::FileSystem& files, const std::string& path, RunParts& parts,
                     const Processes* processes = nullptr);

}  // namespace memlayers::train

// SPDX-License-Identifier: Apache-2.0
// What a checkpoint holds beside the model folder: usage.safetensors (how often each slot was
// read), optimizer/ (dense.safetensors: the state of DenseAdamW by name, and "rng"; the tables of
// RowOptimizer as chunks of whole rows, and rows.safetensors: what it has of one number a row),
// trainer.json (run_state.h), training.toml (the configuration), the tokenizer's file. No file but
// trainer.json depends on how many processes wrote it, and any number of processes read it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/file_system.h"
#include "memlayers/config.h"
#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "memlayers/tokenizer.h"
#include "train/processes.h"
#include "train/run_state.h"

namespace memlayers::train {

struct RunParts {  // all that is saved and restored
  Llama model{nullptr};
  std::shared_ptr<const Tokenizer> tokenizer;
  DenseAdamW* dense = nullptr;
  RowOptimizer* rows = nullptr;  // null without a pool
};

std::string checkpoint_path(const std::string& run_folder, std::int64_t step);

// Writes the folder, whole or not at all; it must not exist. Throws Error. All processes call it
// together: those of the first memory group write the chunks of the pool's tables, the first of
// them all else.
void save_checkpoint(io::FileSystem& files, const std::string& path, const TrainConfig& config,
                     const RunParts& parts, const RunState& state,
                     const Processes* processes = nullptr);
// [slots] int64: how often each was read by all processes, which call it together. Undefined in all
// but the first. Null: one process.
at::Tensor whole_usage(const RunParts& parts, const Processes* processes);

// Restores optimizers, usage and torch's random generator (the model is loaded already; rows that
// lag are set back to where they lagged), whatever number of processes wrote them. All processes
// call it together. Throws Error naming file and tensor where the checkpoint is of another shape or
// another optimizer's, or a file of another step.
void load_optimizers(io::FileSystem& files, const std::string& path, RunParts& parts,
                     const Processes* processes = nullptr);

// Reads everything again that the manifest names and compares; of several processes, which call it
// together, each a part. What is damaged, in one sentence, the same in all; "" where nothing is.
std::string damage_of(io::FileSystem& files, const std::string& checkpoint,
                      const Processes* processes = nullptr);

}  // namespace memlayers::train

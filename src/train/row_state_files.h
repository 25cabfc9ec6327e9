// SPDX-License-Identifier: Apache-2.0
// The files of a checkpoint that hold the state of the pool's optimizer, and how often its slots
// were read (docs/formats.md). All processes of a memory group call these together.
#pragma once

#include <cstdint>
#include <string>

#include "io/file_system.h"
#include "memlayers/optimizer.h"
#include "memlayers/pool.h"
#include "nn/pool_files.h"

namespace memlayers::train {

constexpr const char* kUsageFile = "usage.safetensors";

// A table [part().rows] of all parts: [slots], in the first process; undefined in the others.
at::Tensor whole_numbers(const MemoryPool& pool, const at::Tensor& part);

// usage.safetensors of a model folder: `reads` [slots] int64. The first process writes.
void write_usage(io::FileSystem& files, const std::string& folder, const at::Tensor& whole,
                 std::int64_t step);
// Into the pool's usage.
void load_usage(io::FileSystem& files, const std::string& folder, MemoryPool& pool,
                std::int64_t step);

// Writes <folder>/optimizer/, which must exist; returns the chunks, and who wrote each.
nn::WrittenFiles write_rows(io::FileSystem& files, const std::string& folder, RowOptimizer& rows,
                            const MemoryPool& pool, std::int64_t step);

// What write_rows() writes, all processes together.
std::uint64_t bytes_of_rows(RowOptimizer& rows, const MemoryPool& pool);

struct RowsToLoad {
  int version;  // of the checkpoint
  std::int64_t step, row_steps;
  std::string pool;      // the id of the checkpoint's; not of version 1
  std::int64_t trained;  // slots that it has a state of; those of a growth since begin without one
};
// Restores the optimizer, which is new, rows that lag, and the pool's usage.
void load_rows(io::FileSystem& files, const std::string& folder, RowOptimizer& rows,
               MemoryPool& pool, const RowsToLoad& what);

}  // namespace memlayers::train

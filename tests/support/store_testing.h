// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "memlayers/store.h"

namespace memlayers::testing {

inline constexpr const char* kPoolId = "01234567-89ab-4def-8123-456789abcdef";

// All rows of a pool, contiguous.
using Bytes = std::vector<std::byte>;

// A pool of float32 rows in small chunks, as a test's content.
struct SmallPool {
  std::int64_t rows = 40, width = 5, rows_a_chunk = 16;

  std::int64_t row_bytes() const { return width * 4; }
  // Rows of one number that tells slot and writer: row(slot, 0) is the base's.
  Bytes row(std::int64_t slot, int writer) const;
  Bytes base() const;
  void write(io::FileSystem& fs, const std::string& folder) const;  // its chunks
  // A patch named `p<writer>` that writes these slots.
  Patch patch(int writer, std::vector<std::int64_t> slots,
              std::vector<std::int64_t> erased = {}) const;
};

// The sub-keys of the model that reads it.
inline const SubKeyGrid kSmallGrid{.layers = {1, 3}, .heads = 2, .n_keys = 4, .width = 3};
// The patch with these sub-keys besides, whose numbers tell place and writer.
Patch with_sub_keys(Patch patch, int writer, std::vector<SubKeyPlace> places);

// All rows, and behind them the sub-keys that patches write.
Bytes content(const Snapshot& snapshot);

// What a store should hold: the base and the patches over it, computed in the plainest way.
struct ModelStore {
  Bytes base;
  std::int64_t row_bytes;
  std::vector<Patch> stack = {};
  std::size_t kept = 0;  // of the stack, from the bottom

  Bytes content() const;
  void apply(const Patch& patch) { stack.push_back(patch); }
  void rollback(const std::string& id);
  std::map<std::int64_t, bool> free() const;  // slots that were written, and whether they are free
};

// One edit of a store, and what it does to the model.
struct Step {
  std::string name;
  std::function<void(Store&)> act;
  std::function<void(ModelStore&)> model;
};
// Every kind of edit, in the log and in segments, over several log files. With `small_options()`.
std::vector<Step> every_kind_of_edit(const SmallPool& pool);
StoreOptions small_options();
// content after the first n steps, for each n
std::vector<Bytes> contents_after(const SmallPool& pool, const std::vector<Step>& steps);

// How much of a long test to do: 1 in ctest, `soak` with MEMLAYERS_SOAK set (make soak).
std::int64_t soaked(std::int64_t normal, std::int64_t soak);

}  // namespace memlayers::testing

// SPDX-License-Identifier: Apache-2.0
// What the fuzz targets share: a small pool on a disk in memory, and one rule. Whatever bytes a
// reader is given, it returns or throws Error.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "io/file_system.h"
#include "memlayers/error.h"
#include "memlayers/store.h"
#include "pool/store_parts.h"
#include "support/memory_file_system.h"
#include "support/store_testing.h"

namespace memlayers::fuzz {

using Bytes = std::span<const std::byte>;

inline constexpr const char* kPool = "pool";  // the folder
inline constexpr testing::SmallPool kSmall{.rows = 40, .width = 5, .rows_a_chunk = 16};

inline Bytes bytes_of(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

// A file that is there in whole, in place of the one before.
inline void put(io::FileSystem& fs, const std::string& path, Bytes bytes) {
  if (fs.exists(path)) fs.unlink(path);
  const auto file = fs.open(path, io::OpenMode::kCreate);
  file->pwrite(bytes, 0);
  file->sync();
}

// Ends the program, which libFuzzer reports with the input.
inline void require(bool holds) {
  if (!holds) std::abort();
}

template <class Act>
void allow_error(const Act& act) {
  try {
    act();
  } catch (const Error&) {  // a sentence for the user: all is well
  }
}

// Everything that can be read of a pool.
inline void read_all(const Snapshot& pool) {
  pool.verify();
  testing::Bytes rows(static_cast<std::size_t>(pool.rows() * pool.row_bytes()));
  pool.read(0, rows);
  for (const std::int64_t slot : pool.free_slots()) {
    const std::byte* row = pool.row(slot);
    require(std::all_of(row, row + pool.row_bytes(), [](std::byte b) { return b == std::byte{}; }));
  }
  for (const auto& list : {pool.patches(), pool.undone()}) {
    for (const PatchInfo& patch : list) pool.patch(patch.id);
  }
}

// Small steps of the log: a disk in memory copies a file with each sync.
inline StoreOptions small_steps() {
  StoreOptions options;
  options.inline_bytes = 200;
  options.log_step_bytes = 4096;
  options.sub_keys = testing::kSmallGrid;
  return options;
}

// Opens the pool for reading and for writing, and edits it.
inline void use_pool(io::FileSystem& fs) {
  allow_error([&] { read_all(pool::open_reader(fs, kPool).snapshot()); });
  allow_error([&] {
    Store store = pool::open_store(fs, kPool, small_steps());
    read_all(store.snapshot());
    store.erase(3);
    for (const PatchInfo& patch : store.snapshot().patches()) {
      if (!patch.is_kept) store.rollback(patch.id);
    }
    store.compact();
    read_all(store.snapshot());
  });
}

}  // namespace memlayers::fuzz

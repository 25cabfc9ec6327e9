// SPDX-License-Identifier: Apache-2.0
// More rows for a pool: new chunks are written aside, one record of the log puts them in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "io/file_system.h"
#include "pool/store_parts.h"

namespace memlayers::pool {

struct AddedRows {
  std::int64_t count;
  // Those from slot `first` on, as many as fit into out.
  std::function<void(std::int64_t first, std::span<std::byte> out)> read;
};

// Store::grow().
Committed grow(StoreParts& store, const AddedRows& added);

// Makes in `to`, an empty folder, the pool of the folder `from` with more rows: the files of its
// chunks and patches, which place(path, path) puts there as links or copies and which are never
// written again; chunks of the new rows; and a log that begins with all of these. Patches stay in
// the stack. Durable on return, but for the name of `to`. Nobody may edit `from` meanwhile. Throws
// Error.
void make_grown_copy(
    io::FileSystem& fs, const std::string& from, const std::string& to, const AddedRows& added,
    const std::function<void(const std::string& from, const std::string& to)>& place);

}  // namespace memlayers::pool

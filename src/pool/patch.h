// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "io/file_system.h"
#include "memlayers/patch.h"
#include "pool/rows_file.h"

namespace memlayers::pool {

// As the public ones, over any file system. `is_new`: nothing may be at `path`.
Patch read_patch(io::FileSystem& fs, const std::string& path);
void write_patch(io::FileSystem& fs, const std::string& path, const Patch& patch,
                 bool is_new = false);

// Throws Error where the patch does not fit the pool, in a sentence that begins with its id.
// `sub_keys`: the model's, without which a patch of sub-keys fits none.
void check_patch(const Patch& patch, const PoolInfo& pool,
                 const std::optional<SubKeyGrid>& sub_keys);
// Throws Error, which begins with `what`, naming the first slot whose row is not finite.
void check_finite_rows(const std::string& what, std::span<const std::int64_t> slots,
                       std::span<const std::byte> rows, RowType type, std::int64_t width);

}  // namespace memlayers::pool

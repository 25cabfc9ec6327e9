// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "memlayers/config.h"

namespace memlayers::pool {

// Fills rows [first, last) of a table of `width` columns, contiguous at `rows` (the place of row
// `first`, aligned for its elements), with normal numbers of mean 0 and deviation `std`, from the
// counter-based generator Philox4x32-10 [Philox11] and Box-Muller. A row's bits depend on (seed,
// slot, column) alone: ranges may be filled by any threads, on any instruction set. The rows may be
// the columns from first_column (a multiple of 4) on of wider ones.
void fill_normal(std::byte* rows, RowType type, std::int64_t width, std::int64_t first,
                 std::int64_t last, double std, std::uint64_t seed, std::int64_t first_column = 0);

}  // namespace memlayers::pool

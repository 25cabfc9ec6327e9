// SPDX-License-Identifier: Apache-2.0
// Rows of a pool as numbers, wherever they are.
#pragma once

#include "memlayers/pool.h"

namespace memlayers::edit {

// [n, width] float32 of the slots [n] int64, as gather() would read them now. Not of a memory
// group's pool.
at::Tensor rows_of(const MemoryPool& pool, const at::Tensor& slots);

}  // namespace memlayers::edit

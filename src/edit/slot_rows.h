// SPDX-License-Identifier: Apache-2.0
// Rows of a pool as numbers, wherever they are.
#pragma once

#include "memlayers/pool.h"

namespace memlayers::edit {

// [n, width] float32 of the slots [n] int64, as gather() would read them now, or of `rows`, a
// snapshot of the pool's store. Not of a memory group's pool.
at::Tensor rows_of(const MemoryPool& pool, const at::Tensor& slots, const Snapshot* rows = nullptr);

}  // namespace memlayers::edit

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "memlayers/store.h"
#include "pool/rows_file.h"

namespace memlayers::pool {

// Throws Error where the patch does not fit the pool, in a sentence that begins with its id.
void check_patch(const Patch& patch, const PoolInfo& pool);

}  // namespace memlayers::pool

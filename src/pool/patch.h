// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "memlayers/store.h"
#include "pool/rows_file.h"

namespace memlayers::pool {

// Throws Error where the patch does not fit the pool, in a sentence that begins with its id.
// `sub_keys`: the model's, without which a patch of sub-keys fits none.
void check_patch(const Patch& patch, const PoolInfo& pool,
                 const std::optional<SubKeyGrid>& sub_keys);

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
// Kept patches become part of the base, chunk by chunk.
#pragma once

#include "pool/store_parts.h"

namespace memlayers::pool {

// Store::compact().
Committed compact(StoreParts& store, double part);

}  // namespace memlayers::pool

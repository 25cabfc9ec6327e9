// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "io/json_object.h"
#include "io/model_family.h"
#include "memlayers/config.h"

namespace memlayers::io {

// config.json's rotary embedding, in both spellings; `context` is max_position_embeddings. Throws
// Error naming the field for a type that is not supported or values that are impossible.
RopeConfig read_rope(const JsonObject& fields, const FamilyDefaults& defaults,
                     std::int64_t context);

}  // namespace memlayers::io

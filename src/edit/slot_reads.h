// SPDX-License-Identifier: Apache-2.0
// Which slots a model reads for given tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "memlayers/generator.h"

namespace memlayers::edit {

// [slots] int64: how often each slot is read for these tokens. A sequence longer than the context
// is read in pieces.
at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences);

}  // namespace memlayers::edit

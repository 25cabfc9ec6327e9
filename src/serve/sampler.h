// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "memlayers/generator.h"

namespace memlayers::serve {

// The next token from its logits (vocab_size): the most likely one at temperature 0 (the lowest id
// of equals), else drawn after temperature, top-k and top-p, in this order, as Hugging Face's
// generate does. The draw depends on (seed, row, position) alone, so a row of a batch gives what it
// gives by itself.
std::int32_t sample(std::span<const float> logits, const GenerateOptions& options, std::int64_t row,
                    std::int64_t position);

}  // namespace memlayers::serve

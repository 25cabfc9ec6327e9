// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "memlayers/decoder.h"

namespace memlayers::generate {

// Of one place, from its logits (the model's vocabulary, all finite): of `token` and of the `count`
// most likely tokens. Sums are float64, in the order of the tokens.
TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t token, std::int64_t count);

// Throws Error where a logit is no finite number.
void check_logits(std::span<const float> logits);

}  // namespace memlayers::generate

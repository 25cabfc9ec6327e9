// SPDX-License-Identifier: Apache-2.0
// LLaMA 3's RoPE: GGUF files have a factor a frequency ("rope_freqs.weight"), configurations the
// few numbers that these are made of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memlayers/config.h"

namespace memlayers::io::gguf {

// By what each of the head_dim / 2 frequencies is divided, in float32, as the converter to GGUF
// computes it. For rope.type "llama3".
std::vector<float> rope_factors(const RopeConfig& rope, std::int64_t head_dim);

// Back: sets type, factor, low_freq_factor, high_freq_factor and original_context of `rope`, whose
// theta is known, such that rope_factors() gives these. Tried are, in this order: what is usual (1,
// 4 and 8192); 1, 4 and the original context that `rope` has; what follows from the frequencies
// between the two limits. Factors that are all 1 leave `rope` as it is. Throws Error beginning with
// `where` for factors that no such scaling gives.
void read_rope_factors(std::span<const float> factors, const std::string& where, RopeConfig& rope);

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "memlayers/llama.h"

namespace memlayers {

// The model with more memory: a grid of n_keys x n_keys slots, of which the first are those of
// `model`, each under its number (shell numbering moves none), and all else as it was. It says what
// `model` says, bit for bit: the new sub-keys are masked (MemoryConfig::open_keys) until training,
// which opens them. A mask, because a sub-key that cannot be chosen gets no gradient: a learned
// bias could never open itself.
//
// New sub-keys and rows are drawn as those of a new model, rows from `seed` with the bits that slot
// has in any pool of that seed. The pool keeps its id: patches made for it still fit. Needs memory
// for both. Throws ValueError for a model without a pool or one that reads it from a store, and
// unless n_keys is more than the model has.
Llama grow(const Llama& model, std::int64_t n_keys, std::uint64_t seed);

}  // namespace memlayers

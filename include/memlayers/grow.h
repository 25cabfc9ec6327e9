// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/llama.h"

namespace memlayers {

// The model with more memory: a grid of n_keys x n_keys slots, of which the first are those of
// `model`, each under its number (shell numbering moves none), and all else as it was. It says what
// `model` says, bit for bit: the new sub-keys are masked (MemoryConfig::open_keys) until training,
// which opens them. A mask, because a sub-key that cannot be chosen gets no gradient: a learned
// bias could never open itself.
//
// New sub-keys and rows are drawn as those of a new model, from `seed`, rows with the bits that the
// slot has in any pool of that seed. The pool keeps its id: patches made for it still fit. Needs
// memory for both. Throws ValueError for a model without a pool or one that reads it from a store,
// and unless n_keys is more than the model has.
Llama grow(const Llama& model, std::int64_t n_keys, std::uint64_t seed);

// The same for a model folder or a checkpoint on the disk, with what grow() keeps and in addition
// patches as a stack, the optimizer's state (training resumes from it with memory.n_keys set to the
// new number; new rows and sub-keys begin with that of a new run), counted reads, and all other
// files. No row is loaded: it costs the new ones and, for `out`, a copy.
//
// With `out`, which must not exist, a new folder. Without, in place: beside `folder` another one is
// made, of links and what is new, and the two are exchanged in one step, so that a crash at any
// moment leaves one or the other, whole, and at most `<folder>.next-*`, which the next growth
// removes. It holds the pool's lock. A process that serves the model goes on, sees later edits and
// never reads the new slots.
//
// Throws Error, having changed nothing: for a folder without a pool, for n_keys that are no more,
// while another writer has the pool, where the disk is full or cannot exchange folders.
struct GrownFolder {
  std::int64_t n_keys_before, n_keys, open_keys;
};
GrownFolder grow_folder(const std::string& folder, std::int64_t n_keys, std::uint64_t seed,
                        const std::optional<std::string>& out = {});

// The slots that were never read, ascending: those of `reads` [slots] int64 (read_usage()) that are
// 0.
std::vector<std::int64_t> unused_slots(const at::Tensor& reads);

// Gives each unused slot the row of a busy one, the most read ones in turn, plus normal noise of
// `noise` times the row's root mean square: what comes to read it then begins from something that
// is of use. Busy rows, sub-keys and all else stay; what was read so far changes nothing that the
// model says. Returns the slots that were given a row. Throws ValueError for a model whose rows
// are not all here or of few bits, and where no slot was ever read; Error, having changed nothing,
// where the noise leaves a row that is not finite.
std::vector<std::int64_t> revive_unused(Llama& model, const at::Tensor& reads, double noise,
                                        std::uint64_t seed);

}  // namespace memlayers

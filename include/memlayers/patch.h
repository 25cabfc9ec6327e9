// SPDX-License-Identifier: Apache-2.0
// Patches: what changes a pool on disk, as a small file (docs/store.md). Knows nothing of torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/error.h"
#include "memlayers/subjects.h"

namespace memlayers {

// One sub-key of a model: its memory layer (the number of the decoder layer), head, half (0: that
// of the grid's rows, 1: of its columns) and number.
struct SubKeyPlace {
  std::int64_t layer = 0, head = 0, half = 0, index = 0;
  auto operator<=>(const SubKeyPlace&) const = default;
};

// Sub-keys in place of those of the model.
struct SubKeys {
  std::int64_t width = 0;                // numbers of each: k_dim / 2; 0 where there is none
  std::vector<SubKeyPlace> places = {};  // ascending, each once
  std::vector<float> numbers = {};       // `width` for each place
  bool operator==(const SubKeys&) const = default;
};

// Which sub-keys a model has.
struct SubKeyGrid {
  std::vector<std::int64_t> layers = {};  // ascending
  std::int64_t heads = 0, n_keys = 0, width = 0;
};
SubKeyGrid sub_key_grid(const ModelConfig& config);  // no layers for a model without memory

// Rows to write into a pool, slots to free, and sub-keys of the layers that read it. On disk a
// safetensors file (docs/formats.md).
struct Patch {
  std::string id = {};    // names the patch for good: applying it twice is applying it once
  std::string pool = {};  // the id of the pool that it was made for
  std::int64_t width = 0;
  RowType row_dtype = RowType::kFloat32;
  std::vector<std::int64_t> slots = {};  // ascending, each once
  std::vector<std::byte> rows = {};      // one for each slot, contiguous, as the pool stores them
  std::vector<std::int64_t> erased =
      {};  // slots to free: their rows become zero. Ascending, not in slots
  SubKeys sub_keys = {};
  SubjectRegistry subjects = {};                  // what it teaches; empty: nobody said
  std::map<std::string, std::string> notes = {};  // free: what it teaches, when, from what
};

std::string new_patch_id();  // a random UUID
// Slots and sub-keys may stand in any order in the file. Throws Error for a file that is no patch.
Patch read_patch(const std::string& path);
// Whole or not at all; `path` is replaced. Throws Error for a row that is not finite.
void write_patch(const std::string& path, const Patch& patch);
// The same where nothing may be at `path`: throws Error where something is, whenever it came.
void write_new_patch(const std::string& path, const Patch& patch);

// What two patches write, each list ascending.
template <class Place>
struct PlacesDiff {
  std::vector<Place> only_first, only_second;
  std::vector<Place> same, different;  // of both, with the same numbers or others
};
// Of slots; an erased one is a row of its own kind.
struct PatchDiff : PlacesDiff<std::int64_t> {
  PlacesDiff<SubKeyPlace> sub_keys;
};
// Throws Error for patches of different pools, widths or types of rows, or widths of sub-keys.
PatchDiff diff(const Patch& first, const Patch& second);
// One patch, with an id of its own, that does what applying these in this order does: where several
// write a slot or a sub-key the last one wins. Notes are put together, the last one's where they
// differ, `merged` names the ids, and subjects are those of all. Throws Error for none, and as
// diff().
Patch merge(std::span<const Patch> patches);

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "pool/compaction.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "pool/base_chunk.h"
#include "pool/chunks.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::pool {
namespace {

// Slots that kept patches write, and where their rows are.
using KeptRows = std::map<std::int64_t, RowPlace>;

// The bottom and the kept patches.
std::vector<PatchPointer> kept_layers(const State& state) {
  std::vector<PatchPointer> layers = state.layers();
  layers.resize(layers.size() - state.stack.size() + state.kept);
  return layers;
}

SubKeys kept_sub_keys(const State& state) {
  std::vector<const SubKeys*> all;
  const std::vector<PatchPointer> layers = kept_layers(state);
  for (const PatchPointer& layer : layers) all.push_back(&layer->overlay->sub_keys());
  return together(all);
}

// What they make of rows.
KeptRows kept_rows(const State& state) {
  KeptRows kept;
  for (const PatchPointer& layer : kept_layers(state)) {
    const auto slots = layer->overlay->slots();
    for (std::uint32_t row = 0; row < slots.size(); ++row) {
      kept[slots[row]] = {layer->overlay.get(), row};
    }
    for (const std::int64_t slot : layer->overlay->erased()) {
      kept[slot] = {layer->overlay.get(), Overlay::kErased};
    }
  }
  return kept;
}

// Writes a chunk anew where more than this part of its rows are kept ones, takes those out of
// `kept` and returns true.
bool rewrite_chunk(StoreParts& store, std::size_t index, double part, KeptRows& kept) {
  const auto now = store.commits.published();
  const Chunk& chunk = *now->chunks()[index];
  const PoolInfo& info = now->state().pool;
  const auto begin = kept.lower_bound(chunk.first);
  const auto end = kept.lower_bound(chunk.first + chunk.file.rows());
  // An erased slot stays over the base: that is how it is known to be free.
  const auto is_row = [](const auto& row) { return row.second.row != Overlay::kErased; };
  const auto count = std::count_if(begin, end, is_row);
  if (count == 0 || static_cast<double>(count) <= part * static_cast<double>(chunk.file.rows())) {
    return false;
  }
  std::vector<std::byte> rows(static_cast<std::size_t>(chunk.file.rows() * now->row_bytes()));
  chunk.file.check(0, chunk.file.rows());
  copy_rows(chunk.file.rows(), now->row_bytes(), rows.data(), [&](std::int64_t row) {
    const auto found = kept.find(chunk.first + row);
    return found != kept.end() && is_row(*found) ? found->second.overlay->row(found->second.row)
                                                 : chunk.file.row(row);
  });
  const std::string old = now->state().base[index].name;
  PoolInfo next = info;
  next.generation = chunk.file.pool().generation + 1;
  const std::string name = base_chunk_name(index, next.generation);
  try {
    const ChunkEntry entry =
        write_base_chunk(store.fs, store.folder, name, next, chunk.first, rows);
    store.fs.sync_folder(store.folder);
    store.commits.commit([&](const Version&) {
      return std::optional(Draft{RecordType::kSwap, swap_payload(entry)});
    });
  } catch (...) {
    store.commits.give_up({name});
    throw;
  }
  store.commits.remove(old);  // snapshots that read from it have it mapped
  for (auto row = begin; row != end;) row = is_row(*row) ? kept.erase(row) : std::next(row);
  return true;
}

}  // namespace

Committed compact(StoreParts& store, double part) {
  const std::lock_guard one_at_a_time(store.maintenance);
  const auto now = store.commits.published();
  const State& state = now->state();
  std::vector<std::string> ids;
  for (std::size_t i = 0; i < state.kept; ++i) ids.push_back(state.stack[i]->id);
  KeptRows kept = kept_rows(state);
  bool is_rewritten = false;
  for (std::size_t index = 0; index < state.base.size(); ++index) {
    is_rewritten |= rewrite_chunk(store, index, part, kept);
  }
  if (ids.empty() && state.undone.empty() && !is_rewritten) return {state.lsn, true, {}};

  PatchPointer bottom;
  const SubKeys sub_keys = kept_sub_keys(state);  // they have no base in the pool to go into
  if (!kept.empty() || !sub_keys.places.empty()) {
    std::vector<std::int64_t> slots, erased;
    std::vector<RowPlace> places;
    std::vector<std::byte> rows;
    for (const auto& [slot, place] : kept) {
      if (place.row == Overlay::kErased) {
        erased.push_back(slot);
        continue;
      }
      slots.push_back(slot);
      places.push_back(place);
    }
    rows.resize(slots.size() * static_cast<std::size_t>(now->row_bytes()));
    copy_rows(static_cast<std::int64_t>(slots.size()), now->row_bytes(), rows.data(),
              [&](std::int64_t i) {
                const RowPlace& place = places[static_cast<std::size_t>(i)];
                return place.overlay->row(place.row);
              });
    const Writes writes{slots, rows, erased, sub_keys};
    bottom = std::make_shared<PatchEntry>(entry_of("", writes));
    bottom->segment = "seg-" + new_pool_id() + ".safetensors";
    try {
      write_segment(store.fs, store.path(bottom->segment), state.pool, writes, bottom->content);
    } catch (...) {
      store.commits.give_up({bottom->segment, bottom->segment + ".tmp"});
      throw;
    }
  }
  Committed committed;
  try {
    committed = store.commits.commit([&](const Version&) {
      return std::optional(Draft{RecordType::kFold, fold_payload(ids, bottom)});
    });
  } catch (...) {
    if (bottom != nullptr) store.commits.give_up({bottom->segment});
    throw;
  }
  store.commits.remove_unneeded(state.files());
  return committed;
}

}  // namespace memlayers::pool

// SPDX-License-Identifier: Apache-2.0
#include "pool/version.h"

#include <algorithm>
#include <map>
#include <optional>

#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::pool {
namespace {

// The topmost of the layers that writes the slot.
std::optional<RowPlace> find_place(const std::vector<PatchPointer>& layers, std::int64_t slot) {
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    if (const auto row = (*layer)->overlay->find(slot)) {
      return RowPlace{(*layer)->overlay.get(), *row};
    }
  }
  return std::nullopt;
}

// f(slot, number of its row) for all that an overlay writes, ascending.
template <class F>
void for_each_slot(const Overlay& overlay, const F& f) {
  const auto slots = overlay.slots(), erased = overlay.erased();
  std::size_t i = 0, j = 0;
  while (i < slots.size() || j < erased.size()) {
    if (j == erased.size() || (i < slots.size() && slots[i] < erased[j])) {
      f(slots[i], static_cast<std::uint32_t>(i));
      ++i;
    } else {
      f(erased[j], Overlay::kErased);
      ++j;
    }
  }
}

// Those that patches make together; null for none.
std::shared_ptr<const SubKeys> sub_keys_of(const std::vector<PatchPointer>& patches) {
  std::vector<const SubKeys*> layers;
  for (const PatchPointer& patch : patches) layers.push_back(&patch->overlay->sub_keys());
  SubKeys all = together(layers);
  return all.places.empty() ? nullptr : std::make_shared<const SubKeys>(std::move(all));
}

}  // namespace

std::shared_ptr<const Chunk> RowsLoader::chunk(const ChunkEntry& entry, const PoolInfo& pool) {
  std::weak_ptr<const Chunk>& known = chunks_[entry.name];
  if (auto chunk = known.lock()) return chunk;
  const std::string path = io::join(folder_, entry.name);
  auto chunk = std::make_shared<Chunk>(open_chunk(fs_, path));
  const PoolInfo& info = chunk->file.pool();
  if (info.id != pool.id || info.width != pool.width || info.type != pool.type ||
      chunk->file.stride() != stride_bytes(pool.width, pool.type)) {
    throw Corruption(path + ": expected a chunk of pool " + io::shown(pool.id) + " with rows of " +
                     std::to_string(pool.width) + ", got one of pool " + io::shown(info.id) +
                     " with rows of " + std::to_string(info.width));
  }
  if (chunk->first != entry.first || chunk->file.rows() != entry.rows ||
      chunk->file.digest() != entry.digest) {
    throw Corruption(path + ": expected " + std::to_string(entry.rows) + " rows from row " +
                     std::to_string(entry.first) + " with digest " + entry.digest + ", got " +
                     std::to_string(chunk->file.rows()) + " from row " +
                     std::to_string(chunk->first) + " with " + chunk->file.digest());
  }
  chunk->file.set_access(fs_, access_);
  known = chunk;
  return chunk;
}

void RowsLoader::load(PatchEntry& patch, const PoolInfo& pool) {
  if (patch.overlay != nullptr) return;
  if (!patch.segment.empty()) {
    patch.overlay =
        Overlay::open(fs_, io::join(folder_, patch.segment), pool, patch.content, access_);
  } else {
    const std::string path = io::join(folder_, patch.log);
    if (group_path_ != path || group_offset_ != patch.group) {
      group_ = LogCursor(fs_.open(path, io::OpenMode::kRead), path).group_at(patch.group);
      group_path_ = path;
      group_offset_ = patch.group;
    }
    for (const Record& record : group_) {
      if (record.lsn == patch.lsn) patch.overlay = overlay_of(record, pool, path);
    }
    if (patch.overlay == nullptr) {
      throw Corruption(path + ": expected record " + std::to_string(patch.lsn) +
                       " in the group at byte " + std::to_string(patch.group) + ", found none");
    }
  }
  const auto size = [](const auto& list) { return static_cast<std::int64_t>(list.size()); };
  if (size(patch.overlay->slots()) != patch.rows || size(patch.overlay->erased()) != patch.erased ||
      size(patch.overlay->sub_keys().places) != patch.sub_keys) {
    throw Corruption(io::join(folder_, patch.segment.empty() ? patch.log : patch.segment) +
                     ": expected " + std::to_string(patch.rows) + " rows and " +
                     std::to_string(patch.sub_keys) + " sub-keys of patch " + io::shown(patch.id) +
                     ", got " + std::to_string(size(patch.overlay->slots())) + " and " +
                     std::to_string(size(patch.overlay->sub_keys().places)));
  }
}

std::shared_ptr<const SubKeys> RowsLoader::sub_keys(
    const std::vector<PatchPointer>& patches) const {
  if (sub_keys_) {
    for (const PatchPointer& patch : patches) {
      check_fits(folder_ + ": patch " + io::shown(patch->id), patch->overlay->sub_keys(),
                 *sub_keys_);
    }
  }
  return sub_keys_of(patches);
}

PatchPointer Version::writer_of(const SubKeyPlace& place) const {
  for (auto patch = state_.stack.rbegin(); patch != state_.stack.rend(); ++patch) {
    if (find((*patch)->overlay->sub_keys(), place)) return *patch;
  }
  return nullptr;
}

void Version::open_chunks(RowsLoader& loader) {
  row_bytes_ = row_format(state_.pool.type, state_.pool.width).bytes();
  chunks_.clear();
  for (const ChunkEntry& entry : state_.base) {
    chunks_.push_back(loader.chunk(entry, state_.pool));
    rows_a_chunk_ = std::max(rows_a_chunk_, entry.rows);
  }
}

void Version::rebuild_overrides() {
  struct Write {
    std::int64_t slot;
    RowPlace place;
  };
  std::vector<Write> writes;
  for (const PatchPointer& layer : state_.layers()) {
    for_each_slot(*layer->overlay, [&](std::int64_t slot, std::uint32_t row) {
      writes.push_back({slot, {layer->overlay.get(), row}});
    });
  }
  std::ranges::stable_sort(writes, {}, &Write::slot);
  std::vector<OverrideMap::Change> changes;
  changes.reserve(writes.size());
  for (std::size_t i = 0; i < writes.size(); ++i) {  // of those of one slot the last, the topmost
    if (i + 1 < writes.size() && writes[i + 1].slot == writes[i].slot) continue;
    changes.emplace_back(writes[i].slot, writes[i].place);
  }
  overrides_ = OverrideMap(state_.pool.rows).with(changes);
}

std::shared_ptr<const Version> Version::without(const std::vector<PatchPointer>& patches) const {
  std::shared_ptr<Version> version(new Version(*this));
  State& state = version->state_;
  bool has_sub_keys = false;
  for (const PatchPointer& patch : patches) {
    const auto found = std::ranges::find(state.stack, patch);
    if (found == state.stack.end()) continue;
    if (found - state.stack.begin() < static_cast<std::ptrdiff_t>(state.kept)) --state.kept;
    state.stack.erase(found);
    state.undone.push_back(patch);
    has_sub_keys = has_sub_keys || !patch->overlay->sub_keys().places.empty();
  }
  const std::vector<PatchPointer> layers = state.layers();
  std::map<std::int64_t, std::optional<RowPlace>> places;
  for (const PatchPointer& patch : patches) {
    for_each_slot(*patch->overlay, [&](std::int64_t slot, std::uint32_t) {
      if (overrides_.find(slot)->overlay == patch->overlay.get()) {
        places[slot] = find_place(layers, slot);
      }
    });
  }
  const std::vector<OverrideMap::Change> changes(places.begin(), places.end());
  version->overrides_ = overrides_.with(changes);
  if (has_sub_keys) version->sub_keys_ = sub_keys_of(layers);
  return version;
}

bool Version::has_row_of(const Version& other, std::int64_t slot) const {
  const RowPlace *here = place(slot), *there = other.place(slot);
  if (here != nullptr && there != nullptr) {
    return here->overlay == there->overlay && here->row == there->row;
  }
  return here == there && chunks_[chunk_of(slot)] == other.chunks_[other.chunk_of(slot)];
}

std::shared_ptr<const Version> Version::build(State state, RowsLoader& loader) {
  std::shared_ptr<Version> version(new Version());
  version->state_ = std::move(state);
  version->open_chunks(loader);
  for (const PatchPointer& patch : version->state_.entries()) {
    loader.load(*patch, version->state_.pool);
  }
  loader.forget_group();
  version->rebuild_overrides();
  version->sub_keys_ = loader.sub_keys(version->state_.layers());
  return version;
}

std::shared_ptr<const Version> Version::next(const Record& record, const std::string& log_path,
                                             RowsLoader& loader) const {
  std::shared_ptr<Version> version(new Version(*this));
  State& state = version->state_;
  advance(state, record, log_path);
  std::vector<OverrideMap::Change> changes;
  const auto change_sub_keys = [&](const Overlay& overlay) {
    if (!overlay.sub_keys().places.empty()) version->sub_keys_ = loader.sub_keys(state.layers());
  };
  switch (record.type) {
    case RecordType::kApply:
    case RecordType::kApplyWithSubKeys:
    case RecordType::kReapply: {
      loader.load(*state.stack.back(), state.pool);
      const Overlay* overlay = state.stack.back()->overlay.get();
      for_each_slot(*overlay, [&](std::int64_t slot, std::uint32_t row) {
        changes.emplace_back(slot, RowPlace{overlay, row});
      });
      change_sub_keys(*overlay);
      break;
    }
    case RecordType::kRollback: {
      const Overlay* overlay = state.undone.back()->overlay.get();
      const std::vector<PatchPointer> layers = state.layers();
      for_each_slot(*overlay, [&](std::int64_t slot, std::uint32_t) {
        if (overrides_.find(slot)->overlay == overlay) {
          changes.emplace_back(slot, find_place(layers, slot));
        }
      });
      change_sub_keys(*overlay);
      break;
    }
    case RecordType::kSwap:
      version->open_chunks(loader);
      return version;
    case RecordType::kFold:
      if (state.bottom != nullptr) loader.load(*state.bottom, state.pool);
      version->rebuild_overrides();
      return version;
    case RecordType::kGrow:
      version->open_chunks(loader);
      version->overrides_ = overrides_.with_slots(state.pool.rows);
      return version;
    case RecordType::kKeep:
    case RecordType::kState:
      return version;
  }
  version->overrides_ = overrides_.with(changes);
  return version;
}

}  // namespace memlayers::pool

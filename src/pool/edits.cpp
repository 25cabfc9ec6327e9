// SPDX-License-Identifier: Apache-2.0
#include "pool/edits.h"

#include <algorithm>
#include <map>
#include <ranges>

#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/patch.h"
#include "pool/sub_keys.h"

namespace memlayers::pool {
namespace {

// What the rows of one call may take of the log; the others go into segments.
constexpr std::uint64_t kMostInLog = 4 << 20;

std::vector<Conflict> conflicts_of(const Version& before, const Patch& patch) {
  std::map<const Overlay*, std::string> ids;
  for (const PatchPointer& other : before.state().stack) {
    ids[other->overlay.get()] = other->id;
  }
  std::vector<Conflict> conflicts;
  for (const auto* slots : {&patch.slots, &patch.erased}) {
    for (const std::int64_t slot : *slots) {
      const RowPlace* place = before.place(slot);
      if (place == nullptr) continue;
      const auto other = ids.find(place->overlay);
      if (other != ids.end()) conflicts.push_back({slot, other->second, patch.id});
    }
  }
  std::ranges::sort(conflicts, {}, &Conflict::slot);
  return conflicts;
}

std::vector<SubKeyConflict> sub_key_conflicts_of(const Version& before, const Patch& patch) {
  std::vector<SubKeyConflict> conflicts;
  for (const SubKeyPlace& place : patch.sub_keys.places) {
    if (const auto other = before.writer_of(place)) {
      conflicts.push_back({place, other->id, patch.id});
    }
  }
  return conflicts;
}

// A patch on its way into the store.
struct Applying {
  const Patch* patch;
  Writes writes;
  PatchEntry entry;
  bool is_used = false;  // its segment is
  std::vector<Conflict> conflicts = {};
  std::vector<SubKeyConflict> sub_key_conflicts = {};

  void check_content(const std::string& other) const {
    if (other == entry.content) return;
    throw Error("patch " + io::shown(patch->id) + ": expected the content " + other +
                " that this id stands for, got " + entry.content);
  }
  std::size_t bytes() const {
    return writes.rows.size() + 8 * (writes.slots.size() + writes.erased.size()) +
           place_bytes(writes.sub_keys).size() + number_bytes(writes.sub_keys).size();
  }
};

bool is_known(const State& state, const std::string& id) {
  return state.find(id) != nullptr || state.find_undone(id) != nullptr || state.folded.contains(id);
}

std::vector<Committed> commit_each(
    StoreParts& store, std::span<const std::string> ids,
    const std::function<std::optional<Draft>(const Version&, const std::string&)>& make) {
  std::vector<Drafting> draftings;
  for (const std::string& id : ids) {
    draftings.emplace_back([&](const Version& before) { return make(before, id); });
  }
  return store.commits.commit_all(draftings);
}

}  // namespace

std::vector<Committed> apply(StoreParts& store, std::span<const Patch> patches) {
  const auto now = store.commits.published();
  std::vector<Applying> all;
  std::uint64_t in_log = 0;
  for (const Patch& patch : patches) {
    check_patch(patch, now->state().pool, store.options.sub_keys);
    const Writes writes = writes_of(patch);
    Applying& one = all.emplace_back(&patch, writes, entry_of(patch.id, writes));
    one.entry.notes = patch.notes;
    if (!patch.subjects.empty()) {
      one.entry.subjects = std::make_shared<const SubjectRegistry>(patch.subjects);
    }
    if (is_known(now->state(), patch.id)) continue;
    in_log += one.bytes();
    if (one.bytes() > store.options.inline_bytes || (all.size() > 1 && in_log > kMostInLog)) {
      one.entry.segment = "seg-" + new_pool_id() + ".safetensors";
      in_log -= one.bytes();
    }
  }
  const auto in_segment = [](const Applying& one) { return !one.entry.segment.empty(); };
  // A segment is never there without CURRENT.
  if (std::ranges::any_of(all, in_segment)) store.commits.ensure_log();
  std::vector<Drafting> draftings;
  for (Applying& one : all) {
    draftings.emplace_back([&one](const Version& before) -> std::optional<Draft> {
      const State& state = before.state();
      const std::string& id = one.patch->id;
      one.is_used = false;
      if (const auto folded = state.folded.find(id); folded != state.folded.end()) {
        one.check_content(folded->second);
        return std::nullopt;
      }
      if (const auto there = state.find(id)) {
        one.check_content(there->content);
        return std::nullopt;
      }
      one.conflicts = conflicts_of(before, *one.patch);
      one.sub_key_conflicts = sub_key_conflicts_of(before, *one.patch);
      if (const auto undone = state.find_undone(id)) {
        one.check_content(undone->content);
        return Draft{RecordType::kReapply, id_payload(id)};
      }
      one.is_used = true;
      return Draft{apply_type(one.entry),
                   apply_payload(one.entry, one.entry.segment.empty() ? one.writes : Writes{})};
    });
  }
  std::vector<std::string> segments;
  try {
    for (const Applying& one : all | std::views::filter(in_segment)) {
      segments.insert(segments.end(), {one.entry.segment, one.entry.segment + ".tmp"});
      write_segment(store.fs, store.path(one.entry.segment), now->state().pool, one.writes,
                    one.entry.content);
    }
    std::vector<Committed> committed = store.commits.commit_all(draftings);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!all[i].is_used && in_segment(all[i])) store.commits.remove(all[i].entry.segment);
      if (committed[i].was_there) continue;
      committed[i].conflicts = std::move(all[i].conflicts);
      committed[i].sub_key_conflicts = std::move(all[i].sub_key_conflicts);
    }
    return committed;
  } catch (...) {
    store.commits.give_up(segments);
    throw;
  }
}

Committed edit(StoreParts& store, const std::function<std::optional<Patch>(const Version&)>& make) {
  return store.commits.commit([&](const Version& before) -> std::optional<Draft> {
    std::optional<Patch> patch = make(before);
    if (!patch) return std::nullopt;
    const PoolInfo& info = before.state().pool;
    patch->id = new_patch_id();
    patch->pool = info.id;
    patch->width = info.width;
    patch->row_dtype = info.type;
    check_patch(*patch, info, store.options.sub_keys);
    const Writes writes = writes_of(*patch);
    const PatchEntry entry = entry_of(patch->id, writes);
    return Draft{apply_type(entry), apply_payload(entry, writes)};
  });
}

std::vector<Committed> roll_back(StoreParts& store, std::span<const std::string> ids) {
  return commit_each(
      store, ids, [](const Version& before, const std::string& id) -> std::optional<Draft> {
        const State& state = before.state();
        const auto kept = std::span(state.stack).first(state.kept);
        if (state.folded.contains(id) ||
            std::ranges::find(kept, id, &PatchEntry::id) != kept.end()) {
          throw Error("patch " + io::shown(id) +
                      ": expected one that can be rolled back, got one that is kept");
        }
        if (state.find_undone(id) != nullptr) return std::nullopt;
        if (state.find(id) == nullptr) {
          throw Error("patch " + io::shown(id) + ": expected a patch in this store, found none");
        }
        return Draft{RecordType::kRollback, id_payload(id)};
      });
}

std::vector<Committed> reapply(StoreParts& store, std::span<const std::string> ids) {
  return commit_each(store, ids,
                     [](const Version& before, const std::string& id) -> std::optional<Draft> {
                       const State& state = before.state();
                       if (state.find(id) != nullptr || state.folded.contains(id))
                         return std::nullopt;
                       if (state.find_undone(id) == nullptr) {
                         throw Error("patch " + io::shown(id) +
                                     ": expected a patch that was rolled back, found none");
                       }
                       return Draft{RecordType::kReapply, id_payload(id)};
                     });
}

Committed keep(StoreParts& store, const std::string& id) {
  return store.commits.commit([&](const Version& before) -> std::optional<Draft> {
    const State& state = before.state();
    const auto kept = std::span(state.stack).first(state.kept);
    if (state.folded.contains(id) || std::ranges::find(kept, id, &PatchEntry::id) != kept.end()) {
      return std::nullopt;
    }
    if (state.find(id) == nullptr) {
      throw Error("patch " + io::shown(id) + ": expected a patch that is applied, found none");
    }
    return Draft{RecordType::kKeep, id_payload(id)};
  });
}

std::vector<std::int64_t> free_slots_of(const Version& version) {
  std::vector<std::int64_t> free;
  for (const PatchPointer& layer : version.state().layers()) {
    for (const std::int64_t slot : layer->overlay->erased()) {
      if (version.is_free(slot)) free.push_back(slot);
    }
  }
  std::ranges::sort(free);
  free.erase(std::ranges::unique(free).begin(), free.end());
  return free;
}

}  // namespace memlayers::pool

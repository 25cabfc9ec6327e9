// SPDX-License-Identifier: Apache-2.0
// Patches beside each other: what they share, and one that does what several do.
#include <algorithm>
#include <cstring>
#include <map>

#include "memlayers/store.h"
#include "pool/row_format.h"

namespace memlayers {
namespace {

// slot -> its row; an empty one: erased.
using RowsOfSlots = std::map<std::int64_t, std::span<const std::byte>>;

void add_rows(RowsOfSlots& rows, const Patch& patch) {
  const auto row_bytes =
      static_cast<std::size_t>(pool::row_format(patch.row_dtype, patch.width).bytes());
  if (patch.rows.size() != patch.slots.size() * row_bytes) {
    throw Error("patch " + patch.id + ": expected " + std::to_string(row_bytes) +
                " bytes for each of " + std::to_string(patch.slots.size()) + " slots, got " +
                std::to_string(patch.rows.size()));
  }
  for (std::size_t i = 0; i < patch.slots.size(); ++i) {
    rows[patch.slots[i]] = std::span(patch.rows).subspan(i * row_bytes, row_bytes);
  }
  for (const std::int64_t slot : patch.erased) rows[slot] = {};
}

void check_alike(const Patch& first, const Patch& second) {
  const auto name = [](const Patch& patch) {
    return "pool " + patch.pool + " with rows of " + std::to_string(patch.width) + " " +
           row_type_name(patch.row_dtype);
  };
  if (name(first) == name(second)) return;
  throw Error("patch " + second.id + ": expected one for " + name(first) + ", as patch " +
              first.id + ", got one for " + name(second));
}

}  // namespace

PatchDiff diff(const Patch& first, const Patch& second) {
  check_alike(first, second);
  RowsOfSlots left, right;
  add_rows(left, first);
  add_rows(right, second);
  PatchDiff found;
  for (const auto& [slot, row] : left) {
    const auto other = right.find(slot);
    if (other == right.end()) {
      found.only_first.push_back(slot);
    } else {
      (std::ranges::equal(row, other->second) ? found.same : found.different).push_back(slot);
    }
  }
  for (const auto& [slot, row] : right) {
    if (!left.contains(slot)) found.only_second.push_back(slot);
  }
  return found;
}

Patch merge(std::span<const Patch> patches) {
  if (patches.empty()) throw Error("merge: expected at least one patch, got none");
  const Patch& first = patches.front();
  Patch merged{
      .id = new_patch_id(), .pool = first.pool, .width = first.width, .row_dtype = first.row_dtype};
  RowsOfSlots rows;
  std::string ids;
  for (const Patch& patch : patches) {
    check_alike(first, patch);
    add_rows(rows, patch);
    for (const auto& [name, value] : patch.notes) merged.notes[name] = value;
    ids += (ids.empty() ? "" : " ") + patch.id;
  }
  merged.notes["merged"] = ids;
  for (const auto& [slot, row] : rows) {
    if (row.empty()) {
      merged.erased.push_back(slot);
    } else {
      merged.slots.push_back(slot);
      merged.rows.insert(merged.rows.end(), row.begin(), row.end());
    }
  }
  return merged;
}

}  // namespace memlayers

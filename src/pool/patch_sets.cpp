// SPDX-License-Identifier: Apache-2.0
// Patches beside each other: what they share, and one that does what several do.
#include <algorithm>
#include <cstring>
#include <map>

#include "io/shown.h"
#include "memlayers/patch.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers {
namespace {

// Slot or sub-key -> its numbers; none for a slot that is erased.
template <class Place>
using NumbersOf = std::map<Place, std::span<const std::byte>>;
using RowsOfSlots = NumbersOf<std::int64_t>;

void add_rows(RowsOfSlots& rows, const Patch& patch) {
  const auto row_bytes =
      static_cast<std::size_t>(pool::row_format(patch.row_dtype, patch.width).bytes());
  if (patch.rows.size() != patch.slots.size() * row_bytes) {
    throw Error("patch " + io::shown(patch.id) + ": expected " + std::to_string(row_bytes) +
                " bytes for each of " + std::to_string(patch.slots.size()) + " slots, got " +
                std::to_string(patch.rows.size()));
  }
  for (std::size_t i = 0; i < patch.slots.size(); ++i) {
    rows[patch.slots[i]] = std::span(patch.rows).subspan(i * row_bytes, row_bytes);
  }
  for (const std::int64_t slot : patch.erased) rows[slot] = {};
}

NumbersOf<SubKeyPlace> sub_keys_of(const Patch& patch) {
  pool::check_sub_keys("patch " + io::shown(patch.id), patch.sub_keys);
  NumbersOf<SubKeyPlace> keys;
  for (std::size_t i = 0; i < patch.sub_keys.places.size(); ++i) {
    keys[patch.sub_keys.places[i]] = std::as_bytes(pool::numbers_of(patch.sub_keys, i));
  }
  return keys;
}

template <class Place>
PlacesDiff<Place> diff_of(const NumbersOf<Place>& left, const NumbersOf<Place>& right) {
  PlacesDiff<Place> found;
  for (const auto& [place, numbers] : left) {
    const auto other = right.find(place);
    if (other == right.end()) {
      found.only_first.push_back(place);
    } else {
      (std::ranges::equal(numbers, other->second) ? found.same : found.different).push_back(place);
    }
  }
  for (const auto& [place, numbers] : right) {
    if (!left.contains(place)) found.only_second.push_back(place);
  }
  return found;
}

void check_alike(const Patch& first, const Patch& second) {
  const auto name = [](const Patch& patch) {
    return "pool " + patch.pool + " with rows of " + std::to_string(patch.width) + " " +
           row_type_name(patch.row_dtype);
  };
  const std::int64_t width = first.sub_keys.width, other = second.sub_keys.width;
  if (name(first) == name(second) && width != other && width != 0 && other != 0) {
    throw Error("patch " + io::shown(second.id) + ": expected sub-keys of " +
                std::to_string(width) + " numbers, as patch " + io::shown(first.id) + ", got " +
                std::to_string(other));
  }
  if (name(first) == name(second)) return;
  throw Error("patch " + io::shown(second.id) + ": expected one for " + name(first) +
              ", as patch " + io::shown(first.id) + ", got one for " + name(second));
}

}  // namespace

PatchDiff diff(const Patch& first, const Patch& second) {
  check_alike(first, second);
  RowsOfSlots left, right;
  add_rows(left, first);
  add_rows(right, second);
  return {diff_of(left, right), diff_of(sub_keys_of(first), sub_keys_of(second))};
}

Patch merge(std::span<const Patch> patches) {
  if (patches.empty()) throw Error("merge: expected at least one patch, got none");
  const Patch& first = patches.front();
  Patch merged{
      .id = new_patch_id(), .pool = first.pool, .width = first.width, .row_dtype = first.row_dtype};
  RowsOfSlots rows;
  std::vector<const SubKeys*> sub_keys;
  std::vector<SubjectRegistry> subjects;
  std::string ids;
  for (const Patch& patch : patches) {
    check_alike(first, patch);
    add_rows(rows, patch);
    pool::check_sub_keys("patch " + io::shown(patch.id), patch.sub_keys);
    sub_keys.push_back(&patch.sub_keys);
    subjects.push_back(patch.subjects);
    for (const auto& [name, value] : patch.notes) merged.notes[name] = value;
    ids += (ids.empty() ? "" : " ") + patch.id;
  }
  merged.notes["merged"] = ids;
  merged.sub_keys = pool::together(sub_keys);
  merged.subjects = together(subjects);
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

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "io/shown.h"
#include "memlayers/store.h"
#include "pool/chunks.h"
#include "pool/edits.h"
#include "pool/version.h"

namespace memlayers {
namespace {

PatchInfo info_of(const pool::PatchEntry& patch, bool is_kept) {
  return {patch.id, patch.notes, patch.rows, patch.erased, patch.sub_keys, is_kept};
}

void check_inside(const pool::Version& version, std::int64_t first, std::int64_t count) {
  const std::int64_t rows = version.state().pool.rows;
  if (first >= 0 && count <= rows && first <= rows - count) return;
  throw Error("snapshot: expected rows inside [0, " + std::to_string(rows) + "), got " +
              std::to_string(count) + " from row " + std::to_string(first));
}

}  // namespace

std::uint64_t Snapshot::version() const { return version_->state().lsn; }
const std::string& Snapshot::pool_id() const { return version_->state().pool.id; }
std::int64_t Snapshot::rows() const { return version_->state().pool.rows; }
std::int64_t Snapshot::width() const { return version_->state().pool.width; }
RowType Snapshot::row_dtype() const { return version_->state().pool.type; }
std::int64_t Snapshot::row_bytes() const { return version_->row_bytes(); }
std::int64_t Snapshot::num_chunks() const {
  return static_cast<std::int64_t>(version_->chunks().size());
}

const std::byte* Snapshot::row(std::int64_t slot) const {
  check_inside(*version_, slot, 1);
  return version_->row(slot);
}

void Snapshot::read_rows(std::span<const std::int64_t> slots, std::span<std::byte> out) const {
  if (out.size() != slots.size() * static_cast<std::size_t>(row_bytes())) {
    throw Error("snapshot: expected room for " + std::to_string(slots.size()) + " rows of " +
                std::to_string(row_bytes()) + " bytes, got " + std::to_string(out.size()) +
                " bytes");
  }
  pool::copy_rows(static_cast<std::int64_t>(slots.size()), row_bytes(), out.data(),
                  [&](std::int64_t i) { return row(slots[static_cast<std::size_t>(i)]); });
}

void Snapshot::read(std::int64_t first, std::span<std::byte> out) const {
  const auto bytes = static_cast<std::int64_t>(out.size());
  if (bytes % row_bytes() != 0) {
    throw Error("snapshot: expected room for whole rows of " + std::to_string(row_bytes()) +
                " bytes, got " + std::to_string(out.size()) + " bytes");
  }
  check_inside(*version_, first, bytes / row_bytes());
  pool::copy_rows(bytes / row_bytes(), row_bytes(), out.data(),
                  [&](std::int64_t i) { return version_->row(first + i); });
}

void Snapshot::release(std::int64_t first, std::int64_t count) const {
  check_inside(*version_, first, count);
  version_->for_each_part(first, count,
                          [](const pool::Chunk& chunk, std::int64_t begin, std::int64_t end) {
                            chunk.file.release(begin, end - begin);
                          });
}

void Snapshot::verify() const {
  for (const auto& chunk : version_->chunks()) {
    constexpr std::int64_t kAtOnce = 4096;  // rows; memory need not hold a whole chunk
    for (std::int64_t first = 0; first < chunk->file.rows(); first += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, chunk->file.rows() - first);
      chunk->file.check(first, count);
      chunk->file.release(first, count);
    }
  }
  for (const pool::PatchPointer& patch : version_->state().entries()) patch->overlay->verify();
}

std::string Snapshot::digest() const {
  const pool::RowsSource source{[&](std::int64_t first, std::span<std::byte> out) {
                                  read(first, out);
                                  release(first,
                                          static_cast<std::int64_t>(out.size()) / row_bytes());
                                },
                                rows(), width(), row_dtype()};
  return pool::digest(source);
}

bool Snapshot::is_overridden(std::int64_t slot) const {
  check_inside(*version_, slot, 1);
  return version_->place(slot) != nullptr;
}

std::int64_t Snapshot::overridden_rows() const { return version_->overridden(); }

std::optional<std::string> Snapshot::writer_of(std::int64_t slot) const {
  check_inside(*version_, slot, 1);
  const pool::RowPlace* place = version_->place(slot);
  if (place == nullptr) return std::nullopt;
  for (const pool::PatchPointer& patch : version_->state().stack) {
    if (patch->overlay.get() == place->overlay) return patch->id;
  }
  return std::nullopt;
}

std::vector<std::int64_t> Snapshot::free_slots() const { return pool::free_slots_of(*version_); }

std::shared_ptr<const SubKeys> Snapshot::sub_keys() const { return version_->sub_keys(); }

std::optional<std::string> Snapshot::writer_of(const SubKeyPlace& place) const {
  const pool::PatchPointer patch = version_->writer_of(place);
  if (patch == nullptr) return std::nullopt;
  return patch->id;
}

std::vector<PatchInfo> Snapshot::patches() const {
  const pool::State& state = version_->state();
  std::vector<PatchInfo> all;
  for (std::size_t i = 0; i < state.stack.size(); ++i) {
    all.push_back(info_of(*state.stack[i], i < state.kept));
  }
  return all;
}

std::vector<PatchInfo> Snapshot::undone() const {
  std::vector<PatchInfo> all;
  for (const pool::PatchPointer& patch : version_->state().undone) {
    all.push_back(info_of(*patch, false));
  }
  return all;
}

std::vector<PatchSubjects> Snapshot::subjects() const {
  const pool::State& state = version_->state();
  std::vector<PatchSubjects> all = state.folded_subjects;
  for (const pool::PatchPointer& patch : state.stack) {
    if (patch->subjects != nullptr) all.push_back({patch->id, patch->subjects});
  }
  return all;
}

Patch Snapshot::patch(const std::string& id) const {
  pool::PatchPointer entry = version_->state().find(id);
  if (entry == nullptr) entry = version_->state().find_undone(id);
  if (entry == nullptr)
    throw Error("patch " + io::shown(id) + ": expected a patch in this store, found none");
  const pool::Overlay& overlay = *entry->overlay;
  Patch patch{.id = id, .pool = pool_id(), .width = width(), .row_dtype = row_dtype()};
  patch.slots.assign(overlay.slots().begin(), overlay.slots().end());
  patch.erased.assign(overlay.erased().begin(), overlay.erased().end());
  patch.sub_keys = overlay.sub_keys();
  patch.notes = entry->notes;
  if (entry->subjects != nullptr) patch.subjects = *entry->subjects;
  const auto count = static_cast<std::int64_t>(patch.slots.size());
  patch.rows.resize(static_cast<std::size_t>(count * row_bytes()));
  pool::copy_rows(count, row_bytes(), patch.rows.data(),
                  [&](std::int64_t i) { return overlay.row(static_cast<std::uint32_t>(i)); });
  return patch;
}

Snapshot Snapshot::without(std::span<const std::string> ids) const {
  std::vector<pool::PatchPointer> patches;
  for (const std::string& id : ids) {
    if (const auto patch = version_->state().find(id)) {
      patches.push_back(patch);
    } else if (version_->state().find_undone(id) == nullptr) {
      throw Error("patch " + io::shown(id) + ": expected a patch in this store, found none");
    }
  }
  return patches.empty() ? *this : Snapshot(version_->without(patches));
}

bool Snapshot::reads_as(const Snapshot& other, std::span<const std::int64_t> slots) const {
  if (*this == other) return true;
  if (version_->sub_keys() != other.version_->sub_keys()) return false;
  return std::ranges::all_of(slots, [&](std::int64_t slot) {
    check_inside(*version_, slot, 1);
    check_inside(*other.version_, slot, 1);
    return version_->has_row_of(*other.version_, slot);
  });
}

}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "memlayers/store.h"

#include "memlayers/error.h"
#include "pool/compaction.h"
#include "pool/edits.h"
#include "pool/growth.h"
#include "pool/log_follower.h"
#include "pool/store_parts.h"

namespace memlayers {
namespace {

void check_slot(const std::string& what, std::int64_t slot, const pool::Version& version) {
  const std::int64_t rows = version.state().pool.rows;
  if (slot >= 0 && slot < rows) return;
  throw Error(what + ": expected a slot in [0, " + std::to_string(rows) + "), got " +
              std::to_string(slot));
}

}  // namespace

Store::Store(std::unique_ptr<pool::StoreParts> parts) : parts_(std::move(parts)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Store Store::open(const std::string& folder, const StoreOptions& options) {
  return pool::open_store(io::posix(), folder, options);
}

Snapshot Store::snapshot() const { return Snapshot(parts_->commits.published()); }

bool Store::is_writable() const { return parts_->commits.failure().empty(); }

std::string Store::health() const {
  const std::string failure = parts_->commits.failure();
  return failure.empty() ? "good" : failure;
}

Committed Store::apply(const Patch& patch) { return apply(std::span(&patch, 1)).front(); }
std::vector<Committed> Store::apply(std::span<const Patch> patches) {
  return pool::apply(*parts_, patches);
}

Committed Store::rollback(const std::string& id) { return rollback(std::span(&id, 1)).front(); }
std::vector<Committed> Store::rollback(std::span<const std::string> ids) {
  return pool::roll_back(*parts_, ids);
}

Committed Store::reapply(const std::string& id) { return reapply(std::span(&id, 1)).front(); }
std::vector<Committed> Store::reapply(std::span<const std::string> ids) {
  return pool::reapply(*parts_, ids);
}

Committed Store::keep(const std::string& id) { return pool::keep(*parts_, id); }

Store::Inserted Store::insert(std::span<const std::byte> row) {
  std::int64_t slot = 0;
  const Committed committed = pool::edit(*parts_, [&](const pool::Version& before) {
    const std::vector<std::int64_t> free = pool::free_slots_of(before);
    if (free.empty()) {
      throw Error("insert: expected a free slot, found none: erase rows or grow the pool");
    }
    slot = free.front();
    return std::optional(Patch{.slots = {slot}, .rows = {row.begin(), row.end()}});
  });
  return {slot, committed};
}

Committed Store::update(std::int64_t slot, std::span<const std::byte> row) {
  return pool::edit(*parts_, [&](const pool::Version& before) {
    check_slot("update", slot, before);
    if (before.is_free(slot)) {
      throw Error("update: expected a slot in use, got slot " + std::to_string(slot) +
                  ", which is free");
    }
    return std::optional(Patch{.slots = {slot}, .rows = {row.begin(), row.end()}});
  });
}

Committed Store::erase(std::int64_t slot) {
  return pool::edit(*parts_, [&](const pool::Version& before) -> std::optional<Patch> {
    check_slot("erase", slot, before);
    if (before.is_free(slot)) return std::nullopt;
    return Patch{.erased = {slot}};
  });
}

Committed Store::grow(
    std::int64_t rows,
    const std::function<void(std::int64_t first, std::span<std::byte> out)>& read) {
  return pool::grow(*parts_, {rows, read});
}

Committed Store::compact(double part) { return pool::compact(*parts_, part); }

StoreReader::StoreReader(std::unique_ptr<pool::LogFollower> log) : log_(std::move(log)) {}
StoreReader::StoreReader(StoreReader&&) noexcept = default;
StoreReader& StoreReader::operator=(StoreReader&&) noexcept = default;
StoreReader::~StoreReader() = default;

StoreReader StoreReader::open(const std::string& folder, const StoreOptions& options) {
  return pool::open_reader(io::posix(), folder, options);
}

Snapshot StoreReader::snapshot() const { return Snapshot(log_->published()); }
bool StoreReader::refresh() { return log_->refresh(); }

}  // namespace memlayers

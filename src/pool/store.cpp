// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "pool/chunks.h"
#include "pool/patch.h"
#include "pool/row_format.h"
#include "pool/store_impl.h"
#include "pool/sub_keys.h"

namespace memlayers {
namespace {

constexpr const char* kLock = "LOCK";
constexpr std::uint64_t kGroupBytes = 4 << 20;  // of records in one flush

std::vector<Conflict> conflicts_of(const pool::Version& before, const Patch& patch) {
  std::map<const pool::Overlay*, std::string> ids;
  for (const pool::PatchPointer& other : before.state().stack) {
    ids[other->overlay.get()] = other->id;
  }
  std::vector<Conflict> conflicts;
  for (const auto* slots : {&patch.slots, &patch.erased}) {
    for (const std::int64_t slot : *slots) {
      const pool::RowPlace* place = before.place(slot);
      if (place == nullptr) continue;
      const auto other = ids.find(place->overlay);
      if (other != ids.end()) conflicts.push_back({slot, other->second, patch.id});
    }
  }
  std::ranges::sort(conflicts, {}, &Conflict::slot);
  return conflicts;
}

std::vector<SubKeyConflict> sub_key_conflicts_of(const pool::Version& before, const Patch& patch) {
  std::vector<SubKeyConflict> conflicts;
  for (const SubKeyPlace& place : patch.sub_keys.places) {
    if (const auto other = before.writer_of(place)) {
      conflicts.push_back({place, other->id, patch.id});
    }
  }
  return conflicts;
}

bool is_ours(const std::string& name, const std::string& stem, const std::string& end) {
  return name.starts_with(stem) && name.ends_with(end);
}

}  // namespace

Store::Impl::Impl(io::FileSystem& fs, std::string folder, const StoreOptions& options)
    : fs_(fs), folder_(std::move(folder)), options_(options), loader_(fs, folder_, options) {
  if (!fs.is_folder(folder_)) throw Error(folder_ + ": expected the folder of a pool, found none");
  lock_ = fs.lock(path(kLock));
  if (lock_ == nullptr) {
    throw Error(path(kLock) + ": expected no other writer of this pool, found one at work");
  }
  try {
    pool::Recovered recovered =
        pool::recover(fs, folder_, io::OpenMode::kReadWrite, options.to_point_in_time);
    pending_ = pool::Version::build(std::move(recovered.state), loader_);
    log_name_ = recovered.log;
    if (!log_name_.empty()) {
      if (recovered.is_torn || !recovered.cursor) {
        start_log(pending_->state());
      } else {
        log_ = pool::LogWriter::resume(*recovered.cursor, options_.log_step_bytes);
      }
    }
  } catch (const io::NotFound& error) {
    throw Corruption(std::string(error.what()) + ": the pool needs this file");
  }
  published_.store(pending_);
  if (log_) delete_orphans(pending_->state());
}

void Store::Impl::delete_orphans(const pool::State& state) {
  const std::set<std::string> needed = state.files();
  for (const std::string& name : fs_.list(folder_)) {
    if (needed.contains(name) || name == log_name_) continue;
    if (is_ours(name, "seg-", ".safetensors") || is_ours(name, "chunk-", ".safetensors") ||
        is_ours(name, "seg-", ".tmp") || is_ours(name, "chunk-", ".tmp") ||
        is_ours(name, "log-", ".tmp") || is_ours(name, pool::kCurrent, ".tmp") ||
        pool::log_number(name) != 0) {
      remove(name);
    }
  }
}

void Store::Impl::remove(const std::string& name) {
  try {
    fs_.unlink(path(name));
  } catch (const Error&) {  // an orphan: the next writer deletes it
  }
}

void Store::Impl::remove_unneeded(const std::set<std::string>& names) {
  std::unique_lock lock(mutex_);
  flushed_.wait(lock, [&] { return !is_flushing_; });
  const std::set<std::string> needed = pending_->state().files();
  for (const std::string& name : names) {
    if (!needed.contains(name) && name != log_name_) remove(name);
  }
}

void Store::Impl::give_up(const std::vector<std::string>& names) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.empty()) return;
  }
  for (const std::string& name : names) remove(name);
}

void Store::Impl::check_writable() const {
  if (failure_.empty()) return;
  throw Error(folder_ + ": expected a store that takes edits, got one that stopped: " + failure_ +
              "; open it again");
}

// A new log that begins with `state`, which has no more and no less than what is durable.
pool::LogWriter& Store::Impl::start_log(const pool::State& state) {
  const std::string name = pool::log_name(pool::log_number(log_name_) + 1);
  pool::LogWriter log = pool::LogWriter::create(
      fs_, path(name), {pool::RecordType::kState, state.lsn, pool::state_payload(state)},
      options_.log_step_bytes);
  try {
    fs_.sync_folder(folder_);
  } catch (const Error&) {
    remove(name);
    throw;
  }
  try {
    pool::write_current(fs_, folder_, name);
  } catch (const Error&) {
    // Where CURRENT names the new log but is not durable, it may name either one after a crash:
    // what goes into one of them might never be seen.
    is_current_unknown_ = true;
    try {
      is_current_unknown_ = pool::read_current(fs_, folder_).value_or("") != log_name_;
    } catch (const Error&) {  // then it is unknown; the first error is the one to tell
    }
    if (!is_current_unknown_) remove(name);
    throw;
  }
  pool::LogWriter& started = log_.emplace(std::move(log));
  const std::string before = std::exchange(log_name_, name);
  if (!before.empty() && !state.files().contains(before)) remove(before);
  return started;
}

void Store::Impl::ensure_log() {
  std::unique_lock lock(mutex_);
  check_writable();
  flushed_.wait(lock, [&] { return !is_flushing_; });
  check_writable();
  if (log_) return;
  try {
    start_log(published()->state());
  } catch (const std::exception& error) {
    if (is_current_unknown_) failure_ = error.what();
    throw;
  }
}

void Store::Impl::write_group(const std::vector<Waiting*>& batch) {
  std::vector<pool::Record> records;
  for (Waiting* waiting : batch) {
    if (waiting->record) records.push_back(std::move(*waiting->record));
  }
  if (records.empty()) return;
  const bool has_room = log_ && log_->bytes() <= options_.log_bytes;
  pool::LogWriter& log = has_room ? *log_ : start_log(published()->state());
  for (const Waiting* waiting : batch) {
    if (!waiting->record) continue;
    const pool::RecordType type = waiting->record->type;
    if (type != pool::RecordType::kApply && type != pool::RecordType::kApplyWithSubKeys) continue;
    pool::PatchEntry& patch = *waiting->version->state().stack.back();
    if (!patch.segment.empty()) continue;
    patch.log = log_name_;
    patch.group = log.end();
  }
  log.reserve(records);
  log.append(records);
}

// Commits some of what waits, as the only one who does.
void Store::Impl::flush_some(std::unique_lock<std::mutex>& lock) {
  is_flushing_ = true;
  std::vector<Waiting*> batch;
  for (std::uint64_t bytes = 0; !queue_.empty() && (batch.empty() || bytes < kGroupBytes);) {
    if (const auto& record = queue_.front()->record) bytes += record->payload.size();
    batch.push_back(queue_.front());
    queue_.pop_front();
  }
  lock.unlock();
  std::string error, failure;
  try {
    write_group(batch);
  } catch (const std::exception& caught) {
    error = caught.what();
    if ((log_ && log_->has_failed()) || is_current_unknown_) failure = error;
  }
  lock.lock();
  is_flushing_ = false;
  if (failure_.empty()) failure_ = failure;
  if (error.empty()) {
    published_.store(batch.back()->version);
  } else {
    // What waits behind was made to follow what failed.
    batch.insert(batch.end(), queue_.begin(), queue_.end());
    queue_.clear();
    pending_ = published();
  }
  for (Waiting* waiting : batch) {
    waiting->error = error;
    waiting->is_done = true;
  }
  flushed_.notify_all();
}

Committed Store::Impl::commit(const Drafting& drafting) {
  std::unique_lock lock(mutex_);
  check_writable();
  Waiting waiting;
  if (std::optional<Draft> draft = drafting(*pending_)) {
    waiting.record = {draft->type, pending_->state().lsn + 1, std::move(draft->payload)};
    // Which log it goes into is known when it is written, by who writes: write_group() says so.
    waiting.version = pending_->next(*waiting.record, path("log"), loader_);
    pending_ = waiting.version;
  } else {
    waiting.version = pending_;  // done already, but perhaps by one that still waits: wait with it
  }
  const bool was_there = !waiting.record;
  queue_.push_back(&waiting);
  while (!waiting.is_done) {
    if (is_flushing_) {
      flushed_.wait(lock);
    } else {
      flush_some(lock);
    }
  }
  if (!waiting.error.empty()) throw Error(waiting.error);
  return {waiting.version->state().lsn, was_there, {}};
}

Committed Store::Impl::apply(const Patch& patch) {
  const auto now = published();
  pool::check_patch(patch, now->state().pool, options_.sub_keys);
  const pool::Writes writes = pool::writes_of(patch);
  pool::PatchEntry entry = pool::entry_of(patch.id, writes);
  const std::string content = entry.content;
  entry.notes = patch.notes;
  const bool is_known = now->state().find(patch.id) != nullptr ||
                        now->state().find_undone(patch.id) != nullptr ||
                        now->state().folded.contains(patch.id);
  const std::size_t bytes = patch.rows.size() + 8 * (patch.slots.size() + patch.erased.size()) +
                            pool::place_bytes(patch.sub_keys).size() +
                            pool::number_bytes(patch.sub_keys).size();
  if (!is_known && bytes > options_.inline_bytes) {
    ensure_log();  // so that a segment without CURRENT is never seen
    entry.segment = "seg-" + pool::new_pool_id() + ".safetensors";
  }
  bool is_used = false;
  std::vector<Conflict> conflicts;
  std::vector<SubKeyConflict> sub_key_conflicts;
  const auto check_content = [&](const std::string& other) {
    if (other == content) return;
    throw Error("patch " + patch.id + ": expected the content " + other +
                " that this id stands for, got " + content);
  };
  try {
    if (!entry.segment.empty()) {
      pool::write_segment(fs_, path(entry.segment), now->state().pool, writes, content);
    }
    Committed committed = commit([&](const pool::Version& before) -> std::optional<Draft> {
      const pool::State& state = before.state();
      is_used = false;
      if (const auto folded = state.folded.find(patch.id); folded != state.folded.end()) {
        check_content(folded->second);
        return std::nullopt;
      }
      if (const auto there = state.find(patch.id)) {
        check_content(there->content);
        return std::nullopt;
      }
      conflicts = conflicts_of(before, patch);
      sub_key_conflicts = sub_key_conflicts_of(before, patch);
      if (const auto undone = state.find_undone(patch.id)) {
        check_content(undone->content);
        return Draft{pool::RecordType::kReapply, pool::id_payload(patch.id)};
      }
      is_used = true;
      return Draft{pool::apply_type(entry),
                   pool::apply_payload(entry, entry.segment.empty() ? writes : pool::Writes{})};
    });
    if (!is_used && !entry.segment.empty()) remove(entry.segment);
    if (!committed.was_there) {
      committed.conflicts = std::move(conflicts);
      committed.sub_key_conflicts = std::move(sub_key_conflicts);
    }
    return committed;
  } catch (...) {
    if (!entry.segment.empty()) give_up({entry.segment, entry.segment + ".tmp"});
    throw;
  }
}

Committed Store::Impl::edit(const std::function<std::optional<Patch>(const pool::Version&)>& make) {
  return commit([&](const pool::Version& before) -> std::optional<Draft> {
    std::optional<Patch> patch = make(before);
    if (!patch) return std::nullopt;
    const pool::PoolInfo& info = before.state().pool;
    patch->id = new_patch_id();
    patch->pool = info.id;
    patch->width = info.width;
    patch->row_dtype = info.type;
    pool::check_patch(*patch, info, options_.sub_keys);
    const pool::Writes writes = pool::writes_of(*patch);
    const pool::PatchEntry entry = pool::entry_of(patch->id, writes);
    return Draft{pool::apply_type(entry), pool::apply_payload(entry, writes)};
  });
}

Store::Store(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Store Store::open(const std::string& folder, const StoreOptions& options) {
  return open(io::posix(), folder, options);
}
Store Store::open(io::FileSystem& fs, const std::string& folder, const StoreOptions& options) {
  return Store(std::make_unique<Impl>(fs, folder, options));
}

Snapshot Store::snapshot() const { return Snapshot(impl_->published()); }

bool Store::is_writable() const {
  const std::lock_guard lock(impl_->mutex_);
  return impl_->failure_.empty();
}

std::string Store::health() const {
  const std::lock_guard lock(impl_->mutex_);
  return impl_->failure_.empty() ? "good" : impl_->failure_;
}

Committed Store::apply(const Patch& patch) { return impl_->apply(patch); }

Committed Store::rollback(const std::string& id) {
  return impl_->commit([&](const pool::Version& before) -> std::optional<Impl::Draft> {
    const pool::State& state = before.state();
    const auto kept = std::span(state.stack).first(state.kept);
    if (state.folded.contains(id) ||
        std::ranges::find(kept, id, &pool::PatchEntry::id) != kept.end()) {
      throw Error("patch " + id + ": expected one that can be rolled back, got one that is kept");
    }
    if (state.find_undone(id) != nullptr) return std::nullopt;
    if (state.find(id) == nullptr) {
      throw Error("patch " + id + ": expected a patch in this store, found none");
    }
    return Impl::Draft{pool::RecordType::kRollback, pool::id_payload(id)};
  });
}

Committed Store::reapply(const std::string& id) {
  return impl_->commit([&](const pool::Version& before) -> std::optional<Impl::Draft> {
    const pool::State& state = before.state();
    if (state.find(id) != nullptr || state.folded.contains(id)) return std::nullopt;
    if (state.find_undone(id) == nullptr) {
      throw Error("patch " + id + ": expected a patch that was rolled back, found none");
    }
    return Impl::Draft{pool::RecordType::kReapply, pool::id_payload(id)};
  });
}

Committed Store::keep(const std::string& id) {
  return impl_->commit([&](const pool::Version& before) -> std::optional<Impl::Draft> {
    const pool::State& state = before.state();
    const auto kept = std::span(state.stack).first(state.kept);
    if (state.folded.contains(id) ||
        std::ranges::find(kept, id, &pool::PatchEntry::id) != kept.end()) {
      return std::nullopt;
    }
    if (state.find(id) == nullptr) {
      throw Error("patch " + id + ": expected a patch that is applied, found none");
    }
    return Impl::Draft{pool::RecordType::kKeep, pool::id_payload(id)};
  });
}

namespace {

std::vector<std::int64_t> free_slots_of(const pool::Version& version) {
  std::vector<std::int64_t> free;
  for (const pool::PatchPointer& layer : version.state().layers()) {
    for (const std::int64_t slot : layer->overlay->erased()) {
      if (version.is_free(slot)) free.push_back(slot);
    }
  }
  std::ranges::sort(free);
  free.erase(std::ranges::unique(free).begin(), free.end());
  return free;
}

void check_slot(const std::string& what, std::int64_t slot, const pool::Version& version) {
  const std::int64_t rows = version.state().pool.rows;
  if (slot >= 0 && slot < rows) return;
  throw Error(what + ": expected a slot in [0, " + std::to_string(rows) + "), got " +
              std::to_string(slot));
}

}  // namespace

Store::Inserted Store::insert(std::span<const std::byte> row) {
  std::int64_t slot = 0;
  const Committed committed = impl_->edit([&](const pool::Version& before) {
    const std::vector<std::int64_t> free = free_slots_of(before);
    if (free.empty()) {
      throw Error("insert: expected a free slot, found none: erase rows or grow the pool");
    }
    slot = free.front();
    return std::optional(Patch{.slots = {slot}, .rows = {row.begin(), row.end()}});
  });
  return {slot, committed};
}

Committed Store::update(std::int64_t slot, std::span<const std::byte> row) {
  return impl_->edit([&](const pool::Version& before) {
    check_slot("update", slot, before);
    if (before.is_free(slot)) {
      throw Error("update: expected a slot in use, got slot " + std::to_string(slot) +
                  ", which is free");
    }
    return std::optional(Patch{.slots = {slot}, .rows = {row.begin(), row.end()}});
  });
}

Committed Store::erase(std::int64_t slot) {
  return impl_->edit([&](const pool::Version& before) -> std::optional<Patch> {
    check_slot("erase", slot, before);
    if (before.is_free(slot)) return std::nullopt;
    return Patch{.erased = {slot}};
  });
}

std::vector<std::int64_t> Snapshot::free_slots() const { return free_slots_of(*version_); }

}  // namespace memlayers

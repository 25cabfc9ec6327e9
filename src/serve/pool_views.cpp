// SPDX-License-Identifier: Apache-2.0
#include "serve/pool_views.h"

#include <algorithm>
#include <utility>

#include "io/shown.h"

namespace memlayers::serve {
namespace {

constexpr std::size_t kMostViews = 32;

void check_has_pool(const api::MemoryView& view) {
  const auto refuse = [](const std::string& field) {
    throw api::Refusal(400, "no_memory",
                       "memory." + field +
                           ": expected a model whose pool can be edited, got one "
                           "without memory layers",
                       "memory." + field);
  };
  if (view.version) refuse("version");
  if (view.min_version) refuse("min_version");
  if (!view.without.empty()) refuse("without");
}

}  // namespace

PoolViews::PoolViews(MemoryPool pool, std::size_t held)
    : pool_(std::move(pool)), most_(std::max<std::size_t>(1, held)) {
  if (pool_.is_empty()) return;
  if (const auto rows = pool_->snapshot()) held_.push_back(*rows);
}

void PoolViews::refresh() {
  if (pool_.is_empty()) return;
  pool_->refresh();
  const std::optional<Snapshot> rows = pool_->snapshot();
  std::vector<Snapshot> gone;  // which go without the lock
  std::deque<View> views;
  const std::lock_guard lock(mutex_);
  if (!rows || held_.back() == *rows || rows->version() < held_.back().version()) return;
  held_.push_back(*rows);
  while (held_.size() > most_) {
    gone.push_back(held_.front());
    held_.pop_front();
  }
  const auto is_held = [&](const View& view) {
    return std::ranges::find(held_, view.of) != held_.end();
  };
  std::ranges::partition_copy(std::exchange(views_, {}), std::back_inserter(views_),
                              std::back_inserter(views), is_held);
}

std::optional<Snapshot> PoolViews::now() const {
  const std::lock_guard lock(mutex_);
  if (held_.empty()) return std::nullopt;
  return held_.back();
}

std::vector<std::uint64_t> PoolViews::held() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint64_t> versions;
  for (const Snapshot& rows : held_) versions.push_back(rows.version());
  return versions;
}

Snapshot PoolViews::without(const Snapshot& rows, std::vector<std::string> ids) {
  std::ranges::sort(ids);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  const auto found = std::ranges::find_if(
      views_, [&](const View& view) { return view.of == rows && view.left_out == ids; });
  if (found != views_.end()) {
    std::rotate(found, found + 1, views_.end());
    return views_.back().rows;
  }
  const Snapshot made = [&] {
    try {
      return rows.without(ids);
    } catch (const Error& error) {
      throw api::Refusal(404, "patch_not_found", error.what(), "memory.without");
    }
  }();
  views_.push_back({rows, std::move(ids), made});
  if (views_.size() > kMostViews) views_.pop_front();
  return made;
}

std::optional<SequenceMemory> PoolViews::resolve(const api::MemoryView& view) {
  const std::lock_guard lock(mutex_);
  if (held_.empty()) {
    check_has_pool(view);
    return SequenceMemory{.is_off = view.off};
  }
  const Snapshot* rows = &held_.back();
  if (view.min_version && rows->version() < *view.min_version) return std::nullopt;
  if (view.version) {
    const auto found = std::ranges::find(held_, *view.version, &Snapshot::version);
    if (found == held_.end()) {
      throw api::Refusal(404, "version_not_held",
                         "memory.version: expected one of the " + std::to_string(held_.size()) +
                             " versions that are held, " + std::to_string(held_.front().version()) +
                             " to " + std::to_string(held_.back().version()) + ", got " +
                             std::to_string(*view.version),
                         "memory.version");
    }
    rows = &*found;
  }
  SequenceMemory memory{.is_off = view.off};
  memory.rows = view.without.empty() ? *rows : without(*rows, view.without);
  return memory;
}

}  // namespace memlayers::serve

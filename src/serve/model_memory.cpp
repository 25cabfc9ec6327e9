// SPDX-License-Identifier: Apache-2.0
#include "serve/model_memory.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "edit/explanation_json.h"
#include "io/file_system.h"
#include "io/shown.h"
#include "memlayers/edit.h"
#include "memlayers/explain.h"

namespace memlayers::serve {

ModelMemory::ModelMemory(const std::string& model_folder, Generator& generator, PoolViews& views,
                         Scheduler& scheduler, const EngineOptions& options)
    : folder_(model_folder),
      generator_(generator),
      views_(views),
      scheduler_(scheduler),
      canaries_(generator, scheduler, io::posix(), io::join(model_folder, kCanaryFile),
                [this](const std::string& id) { rollback(id, std::nullopt); }),
      teacher_(model_folder, generator, scheduler, options,
               [this](const Patch& patch) { return apply(patch, std::nullopt); }) {
  StoreOptions of_store;
  of_store.sub_keys = sub_key_grid(generator.model()->config());
  try {
    store_ = Store::open(io::join(folder_, "pool"), of_store);
  } catch (const Corruption&) {
    throw;
  } catch (const Error& error) {
    why_not_ = error.what();
  }
}

void ModelMemory::stop() {
  teacher_.stop();
  canaries_.stop();
}

Snapshot ModelMemory::snapshot() const { return *views_.now(); }

std::string ModelMemory::health() const { return store_ ? store_->health() : why_not_; }

Store& ModelMemory::writable() {
  if (store_ && store_->is_writable()) return *store_;
  throw api::Refusal(503, "store_not_writable", health());
}

PatchInfo ModelMemory::find(const std::string& id) const {
  const Snapshot now = store_ ? store_->snapshot() : snapshot();
  for (const auto& list : {now.patches(), now.undone()}) {
    const auto found = std::ranges::find(list, id, &PatchInfo::id);
    if (found != list.end()) return *found;
  }
  throw api::Refusal(404, "patch_not_found",
                     "patch " + io::quote(id) + ": expected a patch in this store, found none",
                     "id");
}

Committed ModelMemory::edit(std::optional<std::uint64_t> if_version, const Edit& act) {
  const auto acted = [&] {
    Store& store = writable();
    try {
      return act(store);
    } catch (const api::Refusal&) {
      throw;
    } catch (const Error& error) {
      if (store.is_writable()) throw;
      throw api::Refusal(503, "store_not_writable", error.what());
    }
  };
  const Committed committed = [&] {
    if (!if_version) {
      const std::shared_lock lock(edits_);
      return acted();
    }
    const std::unique_lock lock(edits_);
    const std::uint64_t now = writable().snapshot().version();
    if (now != *if_version) {
      throw api::Refusal(412, "version_mismatch",
                         "expected the pool at version " + std::to_string(*if_version) +
                             ", got it at " + std::to_string(now),
                         "if_version");
    }
    return acted();
  }();
  try {
    views_.refresh();
  } catch (const Error& error) {  // it is on the disk, but nobody sees it yet
    scheduler_.report_trouble(error.what());
  }
  scheduler_.wake();
  return committed;
}

Committed ModelMemory::apply(const Patch& patch, std::optional<std::uint64_t> if_version) {
  const Committed committed = edit(if_version, [&](Store& store) { return store.apply(patch); });
  if (!committed.was_there) canaries_.ask(patch.id, committed.version);
  return committed;
}

Committed ModelMemory::rollback(const std::string& id, std::optional<std::uint64_t> if_version) {
  const Committed committed = edit(if_version, [&](Store& store) {
    if (find(id).is_kept) {
      throw api::Refusal(
          409, "patch_is_kept",
          "patch " + io::quote(id) + ": expected one that can be rolled back, got one that is kept",
          "id");
    }
    return store.rollback(id);
  });
  if (!committed.was_there) canaries_.ask(std::nullopt, committed.version);
  return committed;
}

Committed ModelMemory::reapply(const std::string& id, std::optional<std::uint64_t> if_version) {
  const Committed committed = edit(if_version, [&](Store& store) {
    find(id);
    return store.reapply(id);
  });
  if (!committed.was_there) canaries_.ask(id, committed.version);
  return committed;
}

Committed ModelMemory::keep(const std::string& id, std::optional<std::uint64_t> if_version) {
  return edit(if_version, [&](Store& store) {
    find(id);
    return store.keep(id);
  });
}

void ModelMemory::set_canary(api::Canary canary) {
  writable();  // its file is the writer's too
  canaries_.set(std::move(canary));
}

bool ModelMemory::remove_canary(const std::string& id) {
  writable();
  return canaries_.remove(id);
}

api::TeachStatus ModelMemory::teach(api::TeachRequest request) {
  writable();
  return teacher_.add(std::move(request));
}

std::string ModelMemory::explain(const std::string& prompt,
                                 const std::optional<std::string>& answer, std::int64_t top,
                                 const api::MemoryView& memory) {
  if (memory.off) {
    throw api::Refusal(400, "invalid_value",
                       "memory.off: expected false, as an answer without memory rests on no slot",
                       "memory.off");
  }
  const auto view = views_.resolve(memory);
  if (!view) {
    throw api::Refusal(503, "version_not_there",
                       "memory.min_version: expected version " +
                           std::to_string(*memory.min_version) + " of the pool, got " +
                           std::to_string(snapshot().version()),
                       "memory.min_version");
  }
  const ExplainOptions options{.top = top, .rows = view->rows};
  const std::lock_guard lock(explaining_);
  const Explanation explanation = memlayers::explain(generator_, prompt, answer, options);
  return edit::explanation_json(explanation, prompt, {})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace memlayers::serve

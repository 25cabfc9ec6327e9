// SPDX-License-Identifier: Apache-2.0
// The store of a model's pool behind api::Memory.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "api/engine.h"
#include "memlayers/generator.h"
#include "serve/canaries.h"
#include "serve/pool_views.h"
#include "serve/scheduler.h"
#include "serve/teacher.h"

namespace memlayers::serve {

// Edits go through the one writer of the pool's folder, which this process is unless another one
// has it: then there are none here, and those of the other are followed.
class ModelMemory final : public api::Memory {
 public:
  // `generator`: of the model that serves. All must outlive it.
  ModelMemory(const std::string& model_folder, Generator& generator, PoolViews& views,
              Scheduler& scheduler, const EngineOptions& options);

  Snapshot snapshot() const override;
  std::string health() const override;
  Committed apply(const Patch& patch, std::optional<std::uint64_t> if_version) override;
  Committed rollback(const std::string& id, std::optional<std::uint64_t> if_version) override;
  Committed reapply(const std::string& id, std::optional<std::uint64_t> if_version) override;
  Committed keep(const std::string& id, std::optional<std::uint64_t> if_version) override;
  std::vector<std::uint64_t> held_versions() const override { return views_.held(); }

  api::TeachStatus teach(api::TeachRequest request) override;
  std::vector<api::TeachStatus> teach_jobs() const override { return teacher_.jobs(); }
  std::optional<api::TeachStatus> teach_job(const std::string& id) const override {
    return teacher_.job(id);
  }
  bool cancel_teach(const std::string& id) override { return teacher_.cancel(id); }

  std::string explain(const std::string& prompt, const std::optional<std::string>& answer,
                      std::int64_t top, const api::MemoryView& memory) override;

  std::vector<api::Canary> canaries() const override { return canaries_.all(); }
  void set_canary(api::Canary canary) override;
  bool remove_canary(const std::string& id) override;

  void stop();  // its threads

 private:
  using Edit = std::function<Committed(Store&)>;
  Committed edit(std::optional<std::uint64_t> if_version, const Edit& act);
  Store& writable();
  // Throws Refusal 404 where the store has no such patch.
  PatchInfo find(const std::string& id) const;

  const std::string folder_;
  Generator& generator_;
  PoolViews& views_;
  Scheduler& scheduler_;
  std::optional<Store> store_;  // none: why_not_ says why
  std::string why_not_;
  std::shared_mutex edits_;  // held alone by an edit that names the version it follows
  std::mutex explaining_;    // one at a time: it takes all threads
  Canaries canaries_;
  Teacher teacher_;
};

}  // namespace memlayers::serve

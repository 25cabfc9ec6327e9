// SPDX-License-Identifier: Apache-2.0
// The states of a pool that requests can name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/engine.h"
#include "memlayers/decoder.h"
#include "memlayers/pool.h"

namespace memlayers::serve {

// The newest versions of a pool, and what is left of them without some patches. For use from
// several threads.
class PoolViews {
 public:
  // `pool`: that of a model; empty for one without memory layers. Holds its newest `held` versions,
  // at least one, as far as they are seen.
  PoolViews(MemoryPool pool, std::size_t held);

  // Follows edits; holds what is new. Throws Error where the store cannot be followed, and all is
  // as before.
  void refresh();
  std::optional<Snapshot> now() const;      // the newest; none: the model reads no store
  std::vector<std::uint64_t> held() const;  // ascending

  // What a sequence reads that asks for `view`; none: view.min_version is not there yet. Equal
  // views of one version are one snapshot. Throws Refusal 404 for a version or a patch that is not
  // held, 400 where the model has no pool for it.
  std::optional<SequenceMemory> resolve(const api::MemoryView& view);

 private:
  Snapshot without(const Snapshot& rows, std::vector<std::string> ids);

  MemoryPool pool_;
  const std::size_t most_;
  mutable std::mutex mutex_;   // guards what is below
  std::deque<Snapshot> held_;  // ascending by version
  struct View {
    Snapshot of;
    std::vector<std::string> left_out;  // ascending, each once
    Snapshot rows;
  };
  std::deque<View> views_;  // the latest used last
};

}  // namespace memlayers::serve

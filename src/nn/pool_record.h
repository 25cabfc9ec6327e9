// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/pool.h"
#include "nn/table.h"
#include "pool/mapped_region.h"

namespace memlayers {

// Shared with the graphs of forward calls, which may outlive the pool.
struct MemoryPoolImpl::Record {
  const void* file_rows = nullptr;  // where the scratch file is mapped; null: rows in RAM
  bool is_in_file(const at::Tensor& values) const {
    return file_rows != nullptr && values.is_cpu() && values.const_data_ptr() == file_rows;
  }
  // Of the rows and the tables beside them, as far as they are still there. Guarded by mutex.
  std::vector<std::weak_ptr<const pool::MappedRegion>> files;
  at::Tensor make_table(at::IntArrayRef sizes, at::ScalarType type,
                        const std::optional<std::string>& folder) {
    nn::Table table = nn::make_table(sizes, type, folder);
    const std::lock_guard lock(mutex);
    std::erase_if(files, [](const auto& file) { return file.expired(); });
    if (folder) files.push_back(table.region);
    return table.tensor;
  }
  void write_back() const {
    const std::lock_guard lock(mutex);
    for (const auto& file : files) {
      if (const auto region = file.lock()) region->write_back();
    }
  }
  std::int64_t next_call() { return calls++; }
  void add(std::int64_t call, FactoredGradient part) {
    // Saved variables come back with their graph, which must not live as long as the record.
    part.weights = part.weights.detach();
    part.rows = part.rows.detach();
    const std::lock_guard lock(mutex);
    parts.emplace_back(call, std::move(part));
  }

  std::atomic<std::int64_t> calls{0};
  mutable std::mutex mutex;
  std::vector<std::pair<std::int64_t, FactoredGradient>> parts;  // guarded by mutex
};

}  // namespace memlayers

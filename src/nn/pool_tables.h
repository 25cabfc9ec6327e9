// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pool/mapped_region.h"

namespace memlayers::nn {

// Who lets rows of a pool lag behind (PoolOptimizer::kDenseAdamW): it owes them steps, and is asked
// before they are read.
class RowLag {
 public:
  virtual ~RowLag() = default;
  // Brings these rows of the pool up to date; int64, each inside it, in any number.
  virtual void catch_up(const at::Tensor& slots) = 0;
  virtual void catch_up_all() = 0;
  // Copies rows from `first` on as they would then be; changes nothing.
  virtual void read(std::int64_t first, std::span<std::byte> out) = 0;
};

// Where a pool's rows lie, and the tables beside them: in RAM, or in scratch files of one folder.
// From any thread, but for who lags.
class PoolTables {
 public:
  explicit PoolTables(std::optional<std::string> folder) : folder_(std::move(folder)) {}

  // Zeros on the CPU where the rows are, of the pool's size, such as an optimizer's state. In RAM,
  // what is never written costs no memory. Throws Error where there is no room.
  at::Tensor make(at::IntArrayRef sizes, at::ScalarType type);
  // The same, for the rows themselves.
  at::Tensor make_rows(at::IntArrayRef sizes, at::ScalarType type);
  void forget_rows() { file_rows_ = nullptr; }  // they lie elsewhere from now on, in RAM
  // Whether `values` are the rows where they lie in a file, and no copy elsewhere.
  bool are_in_file(const at::Tensor& values) const {
    return file_rows_ != nullptr && values.is_cpu() && values.const_data_ptr() == file_rows_;
  }
  // Starts writing to the disk what was changed in files that are still there, without waiting:
  // where memory is short, pages can be taken back then. After each part of an update. In RAM:
  // nothing.
  void write_back() const;

  const std::shared_ptr<RowLag>& lag() const { return lag_; }  // null: no row lags
  // One at a time: rows catch up with what the one before owes them.
  void set_lag(std::shared_ptr<RowLag> lag);

 private:
  const std::optional<std::string> folder_;
  const void* file_rows_ = nullptr;  // where the rows' file is mapped; null: in RAM
  mutable std::mutex mutex_;
  std::vector<std::weak_ptr<const pool::MappedRegion>> files_;  // guarded by mutex_
  std::shared_ptr<RowLag> lag_;
};

}  // namespace memlayers::nn

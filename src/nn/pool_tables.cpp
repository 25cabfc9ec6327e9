// SPDX-License-Identifier: Apache-2.0
#include "nn/pool_tables.h"

#include <torch/types.h>

#include <utility>

#include "nn/table.h"

namespace memlayers::nn {

at::Tensor PoolTables::make(at::IntArrayRef sizes, at::ScalarType type) {
  Table table = make_table(sizes, type, folder_);
  const std::lock_guard lock(mutex_);
  std::erase_if(files_, [](const auto& file) { return file.expired(); });
  if (folder_) files_.push_back(table.region);
  return table.tensor;
}

at::Tensor PoolTables::make_rows(at::IntArrayRef sizes, at::ScalarType type) {
  at::Tensor rows = make(sizes, type);
  if (folder_) file_rows_ = rows.const_data_ptr();
  return rows;
}

void PoolTables::write_back() const {
  if (!folder_) return;
  const std::lock_guard lock(mutex_);
  for (const auto& file : files_) {
    if (const auto region = file.lock()) region->write_back();
  }
}

void PoolTables::set_lag(std::shared_ptr<RowLag> lag) {
  const std::shared_ptr<RowLag> before = std::exchange(lag_, std::move(lag));
  if (before != nullptr) before->catch_up_all();
}

}  // namespace memlayers::nn

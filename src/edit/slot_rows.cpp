// SPDX-License-Identifier: Apache-2.0
#include "edit/slot_rows.h"

#include "nn/pool_tables.h"
#include "ops/gather/single_rows.h"

namespace memlayers::edit {

at::Tensor rows_of(const MemoryPool& pool, const at::Tensor& slots, const Snapshot* rows) {
  if (rows != nullptr) return ops::rows_of(*rows, slots);
  if (const auto stored = pool->snapshot()) return ops::rows_of(*stored, slots);
  if (const auto lag = pool->tables().lag()) lag->catch_up(slots);
  return ops::decode_rows(
      pool->values.detach().index_select(0, slots.to(pool->values.device())).to(at::kCPU),
      pool->options().row_dtype, pool->width());
}

}  // namespace memlayers::edit

// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <atomic>

#include "kernels/kernels.h"
#include "memlayers/ops.h"
#include "ops/check.h"
#include "ops/parallel.h"

namespace memlayers {

std::int64_t slot_of(std::int64_t row, std::int64_t column) {
  return kernels::slot_of(row, column);
}

std::pair<std::int64_t, std::int64_t> cell_of(std::int64_t slot) { return kernels::cell_of(slot); }

at::Tensor row_major_slots(std::int64_t n_keys) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;  // as many fit 64 bits in bytes too
  TORCH_CHECK_VALUE(n_keys >= 0 && n_keys <= kMost, "row_major_slots: expected n_keys in [0, ",
                    kMost, "], got ", n_keys);
  at::Tensor slots = at::empty({n_keys * n_keys}, at::TensorOptions().dtype(at::kLong));
  std::int64_t* out = slots.mutable_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < n_keys; ++row) {
    for (std::int64_t column = 0; column < n_keys; ++column) {
      *out++ = kernels::slot_of(row, column);
    }
  }
  return slots;
}

namespace ops {

void check_slots(const char* op, const at::Tensor& slots, std::int64_t num_slots) {
  const std::int64_t* data = slots.const_data_ptr<std::int64_t>();
  std::atomic<std::int64_t> bad{-1};
  parallel_ranges(slots.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto limit = static_cast<std::uint64_t>(num_slots);
    bool all_inside = true;  // without a branch, so that it vectorises
    for (std::int64_t i = begin; i < end; ++i) {
      all_inside &= static_cast<std::uint64_t>(data[i]) < limit;
    }
    if (all_inside) return;
    for (std::int64_t i = begin; i < end; ++i) {
      if (static_cast<std::uint64_t>(data[i]) >= limit) {
        bad = i;
        return;
      }
    }
  });
  if (bad >= 0) {
    TORCH_CHECK_INDEX(false, op, ": expected slots in [0, ", num_slots, "), got ", data[bad],
                      " at position ", bad.load());
  }
}

}  // namespace ops
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>

#include "kernels/kernels.h"
#include "memlayers/ops.h"

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

}  // namespace memlayers

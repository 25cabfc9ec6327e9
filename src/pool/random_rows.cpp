// SPDX-License-Identifier: Apache-2.0
#include "pool/random_rows.h"

#include "kernels/bfloat16.h"
#include "kernels/kernels.h"

namespace memlayers::pool {

void fill_normal(std::byte* rows, RowType type, std::int64_t width, std::int64_t first,
                 std::int64_t last, double std, std::uint64_t seed, std::int64_t first_column) {
  const kernels::Kernels& kernel = kernels::active();
  if (type == RowType::kFloat32) {
    kernel.f32.normal(reinterpret_cast<float*>(rows), width, first, last, std, seed, first_column);
  } else {
    kernel.bf16.normal(reinterpret_cast<kernels::BFloat16*>(rows), width, first, last, std, seed,
                       first_column);
  }
}

}  // namespace memlayers::pool

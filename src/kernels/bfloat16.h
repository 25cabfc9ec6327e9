// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace memlayers::kernels {

// The upper half of a float32; same layout as c10::BFloat16, which this folder does not know.
struct BFloat16 {
  std::uint16_t bits;
};
static_assert(sizeof(BFloat16) == 2);

}  // namespace memlayers::kernels

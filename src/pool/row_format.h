// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "kernels/quantized.h"
#include "memlayers/config.h"

namespace memlayers::pool {

// A row in memory: `elements` of `element_bytes` each, which are its numbers or, for rows of few
// bits, bytes.
struct RowFormat {
  std::int64_t elements, element_bytes;
  std::int64_t bytes() const { return elements * element_bytes; }
};

constexpr RowFormat row_format(RowType type, std::int64_t width) {
  switch (type) {
    case RowType::kFloat32:
      return {width, 4};
    case RowType::kBFloat16:
      return {width, 2};
    case RowType::kInt8:
      return {kernels::quantized_row_bytes<kernels::Int8>(width), 1};
    case RowType::kInt4:
      break;
  }
  return {kernels::quantized_row_bytes<kernels::Int4>(width), 1};
}

}  // namespace memlayers::pool

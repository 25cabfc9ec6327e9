// SPDX-License-Identifier: Apache-2.0
#include "io/finite.h"

#include <cstdint>

namespace memlayers::io {

bool all_finite(std::span<const std::byte> numbers, ElementType type) {
  switch (type) {
    case ElementType::kF32:
      return are_finite<std::uint32_t>(numbers, 0x7f800000U);
    case ElementType::kBF16:
      return are_finite<std::uint16_t>(numbers, 0x7f80U);
    case ElementType::kF16:
      return are_finite<std::uint16_t>(numbers, 0x7c00U);
    case ElementType::kF64:
      return are_finite<std::uint64_t>(numbers, 0x7ff0000000000000U);
    default:
      return true;
  }
}

}  // namespace memlayers::io

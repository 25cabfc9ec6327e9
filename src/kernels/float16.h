// SPDX-License-Identifier: Apache-2.0
// IEEE's numbers of 16 bits, as bits. Not for the files that are compiled for an instruction set:
// what is inline here could be merged into other code.
#pragma once

#include <bit>
#include <cstdint>

namespace memlayers::kernels {

inline float half_to_float(std::uint16_t half) noexcept {
  const std::uint32_t sign = std::uint32_t{half & 0x8000U} << 16, size = half & 0x7fffU;
  if (size >= 0x7c00U) return std::bit_cast<float>(sign | 0x7f800000U | (size & 0x3ffU) << 13);
  if (size < 0x400U) {  // denormal: size * 2^-24
    const float x = static_cast<float>(size) * 0x1p-24F;
    return sign != 0 ? -x : x;
  }
  return std::bit_cast<float>(sign | ((size << 13) + (std::uint32_t{127 - 15} << 23)));
}

// The nearest one, of two the even one; infinity beyond what it holds, 65504; a NaN stays one.
inline std::uint16_t float_to_half(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t size = bits & 0x7fffffffU;
  const auto with_sign = [&](std::uint32_t half) {
    return static_cast<std::uint16_t>(sign | half);
  };
  if (size > 0x7f800000U) return with_sign(0x7e00U);
  if (size >= 0x477ff000U) return with_sign(0x7c00U);  // rounds beyond 65504
  if (size < 0x38800000U) {                            // denormal: in whole 2^-24
    const float whole = std::bit_cast<float>(size) * 0x1p24F;
    return with_sign(static_cast<std::uint32_t>((whole + 0x1p23F) - 0x1p23F));
  }
  const std::uint32_t rounded = size + 0xfffU + (size >> 13 & 1U);
  return with_sign((rounded - (std::uint32_t{127 - 15} << 23)) >> 13);
}

}  // namespace memlayers::kernels

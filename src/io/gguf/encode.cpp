// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/encode.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/float16.h"

namespace memlayers::io::gguf {
namespace {

void put(std::byte* to, std::uint16_t bits) { std::memcpy(to, &bits, 2); }

}  // namespace

std::uint16_t bfloat16_of_float(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

void encode_f32(const float* from, std::int64_t blocks, std::byte* to) noexcept {
  std::memcpy(to, from, static_cast<std::size_t>(blocks) * 4);
}

void encode_f16(const float* from, std::int64_t blocks, std::byte* to) noexcept {
  for (std::int64_t i = 0; i < blocks; ++i) put(to + 2 * i, kernels::float_to_half(from[i]));
}

void encode_bf16(const float* from, std::int64_t blocks, std::byte* to) noexcept {
  for (std::int64_t i = 0; i < blocks; ++i) put(to + 2 * i, bfloat16_of_float(from[i]));
}

void encode_q8_0(const float* from, std::int64_t blocks, std::byte* to) noexcept {
  for (; blocks > 0; --blocks, from += 32, to += 34) {
    float most = 0;
    for (int i = 0; i < 32; ++i) most = std::max(most, std::abs(from[i]));
    const float d = most / 127, least = 0x1p-126F;  // whose inverse is finite; a float16 has none
    const float inverse = d < least ? 0 : 1 / d;
    put(to, kernels::float_to_half(d));
    for (int i = 0; i < 32; ++i) {
      to[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(from[i] * inverse)));
    }
  }
}

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace memlayers::kernels {
namespace {

float to_float(std::uint16_t bfloat16) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bfloat16) << 16);
}

std::uint16_t nearest_bfloat16(
    float x) {  // ties to even; x is finite and does not round to infinity
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// The nearest whole number, ties to even, of |x| < 2^22: beyond 2^23 float32 has no fractions.
// Without a call for each number, as nearbyint is where SSE 4.1 may be lacking.
float nearest_whole(float x) {
  constexpr float kShift = 0x1.8p23F;
  return (x + kShift) - kShift;
}

// The bit place of column c (of its block) in the block's eight words.
struct Place {
  std::int64_t byte;
  int shift;
};
Place place_of(std::int64_t column) {
  const std::int64_t block = column / kInt4Block, k = column % kInt4Block / 8, word = column % 8;
  return {block * 32 + word * 4 + k / 2, static_cast<int>(k % 2) * 4};
}

}  // namespace

void quantize(const float* row, std::int64_t width, Int8* out) {
  std::memset(out, 0, static_cast<std::size_t>(quantized_row_bytes<Int8>(width)));
  float most = 0;
  for (std::int64_t c = 0; c < width; ++c) most = std::max(most, std::abs(row[c]));
  const float scale = most / 127;
  if (scale > 0) {
    for (std::int64_t c = 0; c < width; ++c) {
      // A scale that is denormal may be off by much: hence the limits.
      out[c].bits =
          static_cast<std::int8_t>(nearest_whole(std::clamp(row[c] / scale, -127.F, 127.F)));
    }
  }
  std::memcpy(out + scales_offset<Int8>(width), &scale, sizeof scale);
}

void quantize(const float* row, std::int64_t width, Int4* out) {
  std::memset(out, 0, static_cast<std::size_t>(quantized_row_bytes<Int4>(width)));
  auto* scales = out + scales_offset<Int4>(width);
  for (std::int64_t first = 0; first < round_up(width, kInt4Block); first += kInt4Group) {
    const std::int64_t end = std::min(width, first + kInt4Group);
    float most = 0;  // of greatest size, with its sign
    for (std::int64_t c = first; c < end; ++c) {
      if (std::abs(row[c]) > std::abs(most)) most = row[c];
    }
    const std::uint16_t half = nearest_bfloat16(most / -8);
    const float scale = to_float(half);
    std::memcpy(scales + first / kInt4Group * 2, &half, sizeof half);
    for (std::int64_t c = first; c < first + kInt4Group; ++c) {
      const float q =
          c < end && scale != 0 ? nearest_whole(std::clamp(row[c] / scale, -8.F, 7.F)) : 0;
      const Place place = place_of(c);
      out[place.byte].bits = static_cast<std::uint8_t>(
          out[place.byte].bits | (static_cast<unsigned>(static_cast<int>(q) + 8) << place.shift));
    }
  }
}

void dequantize(const Int8* row, std::int64_t width, float* out) {
  float scale = 0;
  std::memcpy(&scale, row + scales_offset<Int8>(width), sizeof scale);
  for (std::int64_t c = 0; c < width; ++c) out[c] = scale * static_cast<float>(row[c].bits);
}

void dequantize(const Int4* row, std::int64_t width, float* out) {
  const Int4* scales = row + scales_offset<Int4>(width);
  for (std::int64_t c = 0; c < width; ++c) {
    std::uint16_t half = 0;
    std::memcpy(&half, scales + c / kInt4Group * 2, sizeof half);
    const Place place = place_of(c);
    out[c] = to_float(half) * static_cast<float>(((row[place.byte].bits >> place.shift) & 15) - 8);
  }
}

}  // namespace memlayers::kernels

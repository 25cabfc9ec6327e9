// SPDX-License-Identifier: Apache-2.0
// Rows of 8 and 4 bits (docs/formats.md). A quantized row is opaque bytes: its numbers, then its
// scales, so that a row is one piece of memory.
//
// Int8: `width` signed bytes q, padded to a multiple of 16; one float32 scale s; padding to 16
// bytes.
//   x = s * q, s = max |x| / 127, q to nearest.
// Int4: blocks of 64 columns in 32 bytes: eight little-endian 32-bit words, where bits [4 k, 4 k +
// 4)
//   of word l are u of column 8 k + l: one masked word is eight neighbouring lanes, already scaled
//   by a power of two. Then a bfloat16 scale for each 32 columns, padded to a multiple of eight
//   scales. x = s * (u - 8), u in [0, 15], s = the number of greatest |x| / -8 (so that one end is
//   exact, as GGUF's Q4_0), u to nearest. Columns beyond the width are zero.
#pragma once

#include <cstdint>

namespace memlayers::kernels {

struct Int8 {
  static constexpr int kBits = 8;
  std::int8_t bits;
};
struct Int4 {
  static constexpr int kBits = 4;
  std::uint8_t bits;
};
static_assert(sizeof(Int8) == 1 && sizeof(Int4) == 1);

constexpr std::int64_t kInt4Block = 64, kInt4Group = 32;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Where the scales of a row of `width` columns begin, and the row's length: bytes, the length a
// multiple of 16.
template <class Row>
constexpr std::int64_t scales_offset(std::int64_t width) {
  return Row::kBits == 8 ? round_up(width, 16) : round_up(width, kInt4Block) / 2;
}
template <class Row>
constexpr std::int64_t quantized_row_bytes(std::int64_t width) {
  return scales_offset<Row>(width) + (Row::kBits == 8 ? 16 : round_up(width, 256) / 16);
}

// One row. Numbers that are not finite have no meaning in a quantized row: the caller refuses them.
void quantize(const float* row, std::int64_t width, Int8* out);
void quantize(const float* row, std::int64_t width, Int4* out);
void dequantize(const Int8* row, std::int64_t width, float* out);
void dequantize(const Int4* row, std::int64_t width, float* out);

}  // namespace memlayers::kernels

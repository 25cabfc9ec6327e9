// SPDX-License-Identifier: Apache-2.0
// Dense weights of 8 and 4 bits, in the order in which products read them (docs/formats.md).
//
// A matrix [rows, width] is cut into tiles of kWeightTile rows, and a row into groups of
// kWeightGroup columns that share a scale s (float16) and, where the code has one, an offset m
// (float16):
//   kInt8: x = s * (u - 128), u in [0, 255]        GGUF's Q8_0
//   kInt4: x = s * (u - 8), u in [0, 15]           GGUF's Q4_0
//   kInt4Offset: x = s * u + m, u in [0, 15]       GGUF's Q4_1
// One tile behind the other; in each its numbers, scales and offsets:
//   numbers [groups, 8, kWeightTile, 4] bytes of kInt8: four neighbouring columns of 16 rows side
//   by side, so that a vector holds as many sums as there are rows; else [groups, 4, kWeightTile,
//   4], where a byte's lower half is column 8 j + i of the group and its upper half column 8 j + 4
//   + i; scales [groups, kWeightTile], and offsets likewise.
// The number of groups is even, so that tiles begin at cache lines. What stands for no row or
// column has a scale of 0.
#pragma once

#include <cstdint>

namespace memlayers::kernels {

constexpr std::int64_t kWeightTile = 16, kWeightGroup = 32;

enum class WeightCode { kInt8, kInt4, kInt4Offset };

struct PackedWeights {
  WeightCode code = WeightCode::kInt8;
  std::int64_t rows = 0, width = 0;
  const std::uint8_t* tiles = nullptr;  // tile_count() of tile_bytes()

  std::int64_t tile_count() const { return (rows + kWeightTile - 1) / kWeightTile; }
  std::int64_t groups() const { return (width + 2 * kWeightGroup - 1) / (2 * kWeightGroup) * 2; }
  // A row's share of a tile: numbers, scale and offset.
  std::int64_t row_bytes() const { return groups() * (number_bytes(code) + scale_bytes(code)); }
  std::int64_t tile_bytes() const { return kWeightTile * row_bytes(); }

  // Of one group of a row.
  static constexpr std::int64_t number_bytes(WeightCode code) {
    return kWeightGroup / (code == WeightCode::kInt8 ? 1 : 2);
  }
  static constexpr std::int64_t scale_bytes(WeightCode code) {
    return code == WeightCode::kInt4Offset ? 4 : 2;
  }
};

// One group of one row: u of each column, and the scale and offset.
struct WeightGroup {
  std::uint8_t numbers[kWeightGroup];
  std::uint16_t scale = 0, offset = 0;
};
// `tiles` as PackedWeights has them.
void set_group(const PackedWeights& shape, std::uint8_t* tiles, std::int64_t row,
               std::int64_t group, const WeightGroup& from);
WeightGroup group_of(const PackedWeights& weights, std::int64_t row, std::int64_t group);

// The nearest that the code has to x (count <= kWeightGroup, all finite): of the scales between 0.8
// and 1.1 times the one that reaches the greatest, the one with the least squared error. A scale
// that a float16 does not hold is infinite.
WeightGroup quantize_group(WeightCode code, const float* x, std::int64_t count);

// Row `row` in float32, out (width).
void unpack_row(const PackedWeights& weights, std::int64_t row, float* out);

// Vectors of 8 bits, for products with such weights: of each group of columns numbers q in [-127,
// 127], x = scale * q, scale = greatest |x| / 127; scale is NaN where an x is not finite.
struct PackedVectors {
  std::int64_t groups = 0;   // a vector
  std::int8_t* numbers;      // [vectors, groups * kWeightGroup]
  float* scales;             // [vectors, groups]
  std::int32_t* minus_sums;  // [vectors, groups]: minus the sum of the numbers
};

}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/float16.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kQuad = 4;  // neighbouring columns that one sum takes at once

struct Place {
  std::int64_t byte;
  int shift;
};
// Of a column of a group, from the tile's numbers of the group on.
Place place_of(WeightCode code, std::int64_t row, std::int64_t column) {
  const std::int64_t quad = column / kQuad, lane = (row % kWeightTile) * kQuad + column % kQuad;
  if (code == WeightCode::kInt8) return {quad * kWeightTile * kQuad + lane, 0};
  return {quad / 2 * kWeightTile * kQuad + lane, quad % 2 == 0 ? 0 : 4};
}

// Where a row's group is, in bytes.
struct Parts {
  std::int64_t numbers, scale, offset;
};
Parts parts_of(const PackedWeights& shape, std::int64_t row, std::int64_t group) {
  const std::int64_t tile = row / kWeightTile * shape.tile_bytes(),
                     numbers = kWeightTile * PackedWeights::number_bytes(shape.code),
                     scales = tile + shape.groups() * numbers,
                     place = 2 * (group * kWeightTile + row % kWeightTile);
  return {tile + group * numbers, scales + place,
          scales + 2 * shape.groups() * kWeightTile + place};
}

constexpr int most_of(WeightCode code) { return code == WeightCode::kInt8 ? 255 : 15; }
constexpr int zero_of(WeightCode code) {
  return code == WeightCode::kInt8 ? 128 : code == WeightCode::kInt4 ? 8 : 0;
}

float value_of(WeightCode code, const WeightGroup& group, std::int64_t i) {
  const auto number = static_cast<float>(group.numbers[i] - zero_of(code));
  const float x = half_to_float(group.scale) * number;
  return code == WeightCode::kInt4Offset ? x + half_to_float(group.offset) : x;
}

// x in the numbers that a scale and an offset give; the squared error.
double fill(WeightCode code, const float* x, std::int64_t count, WeightGroup& group) {
  const float scale = half_to_float(group.scale);
  const float offset = code == WeightCode::kInt4Offset ? half_to_float(group.offset) : 0;
  const float inverse = scale == 0 ? 0 : 1 / scale;
  const int zero = zero_of(code), least = code == WeightCode::kInt8 ? 1 : 0;
  double error = 0;
  for (std::int64_t i = 0; i < kWeightGroup; ++i) {
    const float wanted = i < count ? x[i] : 0;
    const float number =
        std::clamp(std::nearbyint((wanted - offset) * inverse) + static_cast<float>(zero),
                   static_cast<float>(least), static_cast<float>(most_of(code)));
    group.numbers[i] = static_cast<std::uint8_t>(number);
    if (i >= count) continue;
    const double off = static_cast<double>(value_of(code, group, i)) - wanted;
    error += off * off;
  }
  return error;
}

}  // namespace

void set_group(const PackedWeights& shape, std::uint8_t* tiles, std::int64_t row,
               std::int64_t group, const WeightGroup& from) {
  const Parts parts = parts_of(shape, row, group);
  const bool has_halves = shape.code != WeightCode::kInt8;
  for (std::int64_t i = 0; i < kWeightGroup; i += has_halves ? 2 * kQuad : kQuad) {
    std::uint8_t quad[kQuad];
    for (std::int64_t c = 0; c < kQuad; ++c) {
      const int upper = has_halves ? from.numbers[i + kQuad + c] << 4 : 0;
      quad[c] = static_cast<std::uint8_t>(from.numbers[i + c] | upper);
    }
    std::memcpy(tiles + parts.numbers + place_of(shape.code, row, i).byte, quad, sizeof quad);
  }
  std::memcpy(tiles + parts.scale, &from.scale, sizeof from.scale);
  if (shape.code == WeightCode::kInt4Offset) {
    std::memcpy(tiles + parts.offset, &from.offset, sizeof from.offset);
  }
}

WeightGroup group_of(const PackedWeights& weights, std::int64_t row, std::int64_t group) {
  WeightGroup result;
  const Parts parts = parts_of(weights, row, group);
  for (std::int64_t i = 0; i < kWeightGroup; ++i) {
    const auto [byte, shift] = place_of(weights.code, row, i);
    result.numbers[i] = static_cast<std::uint8_t>(weights.tiles[parts.numbers + byte] >> shift &
                                                  most_of(weights.code));
  }
  std::memcpy(&result.scale, weights.tiles + parts.scale, sizeof result.scale);
  if (weights.code == WeightCode::kInt4Offset) {
    std::memcpy(&result.offset, weights.tiles + parts.offset, sizeof result.offset);
  }
  return result;
}

WeightGroup quantize_group(WeightCode code, const float* x, std::int64_t count) {
  float low = 0, high = 0;  // beside 0, which columns behind the width are
  for (std::int64_t i = 0; i < count; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  const float greatest = -low > high ? low : high;
  WeightGroup best;
  double least = std::numeric_limits<double>::infinity();
  const auto attempt = [&](float scale, float offset) {
    WeightGroup group;
    group.scale = float_to_half(scale);
    group.offset = float_to_half(offset);
    const double error = fill(code, x, count, group);
    if (!(error >= least)) {  // NaN too: a scale that is not finite is seen by who asked
      least = error;
      best = group;
    }
  };
  constexpr int kSteps = 12;
  for (int step = 0; step <= kSteps; ++step) {
    const float stretch = 1.1F - 0.3F * static_cast<float>(step) / kSteps;
    switch (code) {
      case WeightCode::kInt8:  // finer than the search: what reaches the greatest is best
        if (step == 0) attempt(std::abs(greatest) / 127, 0);
        break;
      case WeightCode::kInt4:
        attempt(stretch * greatest / -8, 0);
        break;
      case WeightCode::kInt4Offset: {
        const float middle = (low + high) / 2, reach = stretch * (high - low) / 2;
        attempt(2 * reach / 15, middle - reach);
        break;
      }
    }
  }
  return best;
}

void unpack_row(const PackedWeights& weights, std::int64_t row, float* out) {
  for (std::int64_t g = 0; g * kWeightGroup < weights.width; ++g) {
    const WeightGroup group = group_of(weights, row, g);
    const std::int64_t first = g * kWeightGroup,
                       end = std::min(weights.width, first + kWeightGroup);
    for (std::int64_t c = first; c < end; ++c) out[c] = value_of(weights.code, group, c - first);
  }
}

}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <string>

#include "kernel_testing.h"
#include "kernels/float16.h"

namespace memlayers::kernels {
namespace {

constexpr WeightCode kCodes[] = {WeightCode::kInt8, WeightCode::kInt4, WeightCode::kInt4Offset};

struct Packed {
  PackedWeights weights;
  std::vector<std::uint8_t> tiles;

  Packed(WeightCode code, std::int64_t rows, std::int64_t width, const std::vector<float>& values)
      : weights{code, rows, width},
        tiles(static_cast<std::size_t>(weights.tile_count() * weights.tile_bytes())) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t group = 0; group * kWeightGroup < width; ++group) {
        const std::int64_t first = group * kWeightGroup;
        set_group(weights, tiles.data(), row, group,
                  quantize_group(code, values.data() + row * width + first,
                                 std::min(kWeightGroup, width - first)));
      }
    }
    weights.tiles = tiles.data();
  }
};

struct Vectors {
  std::vector<std::int8_t> numbers;
  std::vector<float> scales;
  std::vector<std::int32_t> minus_sums;
  PackedVectors packed;

  Vectors(const Kernels& kernel, const std::vector<float>& x, std::int64_t width,
          std::int64_t count, std::int64_t groups)
      : numbers(static_cast<std::size_t>(count * groups * kWeightGroup + 1)),
        scales(static_cast<std::size_t>(count * groups + 1)),
        minus_sums(scales.size()),
        packed{groups, numbers.data(), scales.data(), minus_sums.data()} {
    kernel.pack_vectors(x.data(), width, count, packed);
  }
};

class PackedProducts : public EachIsa {};

TEST_P(PackedProducts, AreThoseOfTheNumbersThatTheirPartsStandFor) {
  for (const WeightCode code : kCodes) {
    for (const std::int64_t width : {1, 4, 31, 32, 33, 64, 65, 200}) {
      for (const std::int64_t rows : {1, 5, 16, 17, 40}) {
        const Packed matrix(code, rows, width, normal(rows * width, 3));
        constexpr std::int64_t kVectors = 3;
        const Vectors x(kernel(), normal(kVectors * width, 4), width, kVectors,
                        matrix.weights.groups());
        std::vector<float> out(static_cast<std::size_t>(kVectors * rows)), row(width);
        kernel().packed_products(matrix.weights, 0, matrix.weights.tile_count(), x.packed, kVectors,
                                 out.data(), rows);
        for (std::int64_t r = 0; r < rows; ++r) {
          unpack_row(matrix.weights, r, row.data());
          for (std::int64_t t = 0; t < kVectors; ++t) {
            double wanted = 0, size = 0;
            for (std::int64_t c = 0; c < width; ++c) {
              const std::int64_t at = t * matrix.weights.groups() + c / kWeightGroup;
              const double number =
                  x.numbers[static_cast<std::size_t>(at * kWeightGroup + c % kWeightGroup)];
              const double term = double{row[c]} * number * x.scales[at];
              wanted += term;
              size += std::abs(term);
            }
            EXPECT_NEAR(out[t * rows + r], wanted, 1e-5 * size + 1e-30)
                << "code " << static_cast<int>(code) << ", width " << width << ", row " << r;
          }
        }
      }
    }
  }
}

TEST_P(PackedProducts, HaveTheBitsOfOneVectorAndOneTileAtATime) {
  for (const WeightCode code : kCodes) {
    constexpr std::int64_t kRows = 70, kWidth = 300, kStride = kRows + 3;
    const Packed matrix(code, kRows, kWidth, normal(kRows * kWidth, 3));
    for (const std::int64_t vectors : {0, 1, 2, 3, 4, 7, 8, 9, 17, 64}) {
      const std::vector<float> values = normal(vectors * kWidth + 1, 4);
      const Vectors x(kernel(), values, kWidth, vectors, matrix.weights.groups());
      std::vector<float> out(static_cast<std::size_t>(vectors * kStride + 1), 99), alone(kRows, 99);
      kernel().packed_products(matrix.weights, 0, matrix.weights.tile_count(), x.packed, vectors,
                               out.data(), kStride);
      for (std::int64_t t = 0; t < vectors; ++t) {
        const std::vector<float> one(values.begin() + t * kWidth,
                                     values.begin() + (t + 1) * kWidth);
        const Vectors single(kernel(), one, kWidth, 1, matrix.weights.groups());
        for (std::int64_t tile = 0; tile < matrix.weights.tile_count(); ++tile) {
          kernel().packed_products(matrix.weights, tile, tile + 1, single.packed, 1, alone.data(),
                                   kRows);
        }
        for (std::int64_t r = 0; r < kRows; ++r) ASSERT_EQ(out[t * kStride + r], alone[r]);
        EXPECT_EQ(out[t * kStride + kRows], 99) << "behind the rows nothing is written";
      }
    }
  }
}

// 255 * 127 a product: no sum of two fits 16 bits.
TEST_P(PackedProducts, AreExactForTheGreatestNumbers) {
  constexpr std::int64_t kWidth = 64;
  for (const float sign : {1.0F, -1.0F}) {
    Packed matrix(WeightCode::kInt8, 1, kWidth, std::vector<float>(kWidth, 1));
    WeightGroup group;
    std::fill_n(group.numbers, kWeightGroup, std::uint8_t{255});
    group.scale = float_to_half(1);
    for (const std::int64_t g : {0, 1}) set_group(matrix.weights, matrix.tiles.data(), 0, g, group);
    const Vectors x(kernel(), std::vector<float>(kWidth, 127 * sign), kWidth, 1, 2);
    float out = 0;
    kernel().packed_products(matrix.weights, 0, 1, x.packed, 1, &out, 1);
    EXPECT_EQ(out, sign * 127 * 127 * kWidth);
  }
}

// The inverse of their scale is infinite.
TEST_P(PackedProducts, OfVectorsThatAreAlmostNothingAreNothing) {
  const Packed matrix(WeightCode::kInt8, 3, 40, normal(3 * 40, 3));
  std::vector<float> values = normal(40, 4);
  for (float& value : values) value *= 1e-41F;
  const Vectors x(kernel(), values, 40, 1, 2);
  float out[3];
  kernel().packed_products(matrix.weights, 0, 1, x.packed, 1, out, 3);
  for (const float y : out) EXPECT_EQ(y, 0);
}

TEST_P(PackedProducts, OfAVectorThatIsNotFiniteAreNoNumbers) {
  const Packed matrix(WeightCode::kInt4, 3, 40, normal(3 * 40, 3));
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = normal(2 * 40, 4);
    values[39] = bad;
    const Vectors x(kernel(), values, 40, 2, 2);
    float out[6];
    kernel().packed_products(matrix.weights, 0, 1, x.packed, 2, out, 3);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(std::isnan(out[i]), i < 3);
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, PackedProducts,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

TEST(PackedWeights, HalvesAreThoseOfIeee) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = half_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(x)) continue;
    ASSERT_EQ(float_to_half(x), bits);
  }
  EXPECT_EQ(half_to_float(0x3555), 0.333251953125F);
  EXPECT_EQ(float_to_half(65519.99F), 0x7bff);
  EXPECT_EQ(float_to_half(65520), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-25F), 0);  // ties go to even
  EXPECT_EQ(float_to_half(0x1.8p-24F), 2);
  EXPECT_EQ(float_to_half(2049), 0x6800);
}

TEST(PackedWeights, AGroupComesBackAsItWasPut) {
  for (const WeightCode code : kCodes) {
    Packed matrix(code, 33, 100, std::vector<float>(3300, 0));
    std::mt19937 generator(1);
    std::vector<WeightGroup> put;
    for (std::int64_t row = 0; row < 33; ++row) {
      for (std::int64_t g = 0; g < 4; ++g) {
        WeightGroup& group = put.emplace_back();
        for (std::uint8_t& u : group.numbers)
          u = generator() % (code == WeightCode::kInt8 ? 256 : 16);
        group.scale = static_cast<std::uint16_t>(generator());
        group.offset =
            code == WeightCode::kInt4Offset ? static_cast<std::uint16_t>(generator()) : 0;
        set_group(matrix.weights, matrix.tiles.data(), row, g, group);
      }
    }
    for (std::size_t i = 0; i < put.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const WeightGroup got = group_of(matrix.weights, at / 4, at % 4);
      EXPECT_TRUE(std::ranges::equal(got.numbers, put[i].numbers));
      EXPECT_EQ(got.scale, put[i].scale);
      EXPECT_EQ(got.offset, put[i].offset);
    }
  }
}

double error_of(WeightCode code, const std::vector<float>& x) {
  const Packed matrix(code, 1, static_cast<std::int64_t>(x.size()), x);
  std::vector<float> back(x.size());
  unpack_row(matrix.weights, 0, back.data());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double{back[i]} - x[i], 2);
    size += std::pow(double{x[i]}, 2);
  }
  return std::sqrt(error / size);
}

TEST(PackedWeights, NormalNumbersLoseWhatTheBitsCost) {
  const std::vector<float> x = normal(32 * 200, 5);
  const double int8 = error_of(WeightCode::kInt8, x), int4 = error_of(WeightCode::kInt4, x),
               with_offset = error_of(WeightCode::kInt4Offset, x);
  EXPECT_LT(int8, 0.006);
  EXPECT_LT(int4, 0.09);
  EXPECT_LT(with_offset, 0.08);
}

TEST(PackedWeights, ZerosAreExactAndOneNumberIsNearlySo) {
  for (const WeightCode code : kCodes) {
    EXPECT_TRUE(std::isnan(error_of(code, std::vector<float>(40, 0))));  // 0 of 0
    EXPECT_LT(error_of(code, std::vector<float>(64, 0.5F)), 5e-4) << static_cast<int>(code);
  }
}

}  // namespace
}  // namespace memlayers::kernels

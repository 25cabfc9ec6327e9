// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernel_testing.h"

namespace memlayers::kernels {
namespace {

class Dense : public EachIsa {};

template <class Row>
void expect_the_bits_of_one_vector(const RowKernels<Row>& kernel) {
  for (const std::int64_t width : kWidths) {
    for (const std::int64_t count : {0, 1, 2, 3, 4, 9}) {
      for (const std::int64_t vectors : {0, 1, 2, 3, 5, 6, 7, 12, 17}) {
        const std::int64_t x_stride = width + 3, out_stride = count + 2;
        const auto matrix = rows<Row>(count * width, 3);
        const std::vector<float> x = normal(vectors * x_stride + 1, 4);
        std::vector<float> out(static_cast<std::size_t>(vectors * out_stride), 99), alone(9, 99);
        kernel.products(matrix.data(), width, count, x.data(), x_stride, vectors, out.data(),
                        out_stride);
        for (std::int64_t t = 0; t < vectors; ++t) {
          kernel.dots_in_order(matrix.data(), width, count, x.data() + t * x_stride, alone.data());
          const float* got = out.data() + t * out_stride;
          for (std::int64_t i = 0; i < count; ++i) {
            ASSERT_EQ(got[i], alone[static_cast<std::size_t>(i)])
                << "width " << width << ", " << count << " rows, " << vectors << " vectors";
          }
          EXPECT_EQ(got[count], 99) << "behind the rows nothing is written";
        }
      }
    }
  }
}

TEST_P(Dense, ProductsHaveTheBitsOfOneVectorAtATime) {
  expect_the_bits_of_one_vector(kernel().f32);
  expect_the_bits_of_one_vector(kernel().bf16);
}

template <class Row>
void expect_the_bits_of_gather(const RowKernels<Row>& kernel) {
  for (const std::int64_t width : kWidths) {
    for (const std::int64_t count : {0, 1, 2, 9, 64}) {
      for (const std::int64_t vectors : {0, 1, 3, 5, 48}) {
        const auto matrix = rows<Row>(count * width, 3);
        const std::int64_t stride = count + 2;
        const std::vector<float> weights = normal(vectors * stride + 1, 4);
        const std::vector<float> before = normal(vectors * width + 1, 5);
        std::vector<float> out = before, alone = before;
        kernel.weighted_sums_add(matrix.data(), width, count, weights.data(), stride, vectors,
                                 out.data());
        std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
        std::iota(ids.begin(), ids.end(), std::int64_t{0});
        for (std::int64_t t = 0; t < vectors; ++t) {
          kernel.gather_add(matrix.data(), {width, width, 0, width}, ids.data(),
                            weights.data() + t * stride, count, 0, alone.data() + t * width);
        }
        ASSERT_EQ(out, alone) << "width " << width << ", " << count << " rows, " << vectors
                              << " vectors";
      }
    }
  }
}

TEST_P(Dense, WeightedSumsHaveTheBitsOfGatherAdd) {
  expect_the_bits_of_gather(kernel().f32);
  expect_the_bits_of_gather(kernel().bf16);
}

TEST_P(Dense, SoftmaxOfScoresInAnyOrderIsThatOfTheirDifferences) {
  for (const std::int64_t n : {1, 2, 7, 8, 15, 16, 17, 33, 500}) {
    std::vector<float> scores = normal(n, 5);
    for (float& score : scores) score = 20 * score + 300;  // exp of it alone is infinite
    std::vector<float> out(scores.size());
    kernel().softmax_of_all(scores.data(), n, out.data());
    const double highest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (const float score : scores) total += std::exp(score - highest);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      const double wanted = std::exp(scores[i] - highest) / total;
      EXPECT_NEAR(out[i], wanted, 1e-6 * wanted + 1e-37) << "of " << n;
    }
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
        std::vector<float> wrong = scores;
        wrong[static_cast<std::size_t>(at)] = bad;
        kernel().softmax_of_all(wrong.data(), n, wrong.data());
        for (const float weight : wrong) EXPECT_TRUE(std::isnan(weight)) << bad << " at " << at;
      }
    }
  }
}

TEST_P(Dense, SiluIsItsFormulaWhereverANumberStands) {
  std::vector<float> x{0, -0.0F, 1, -1, 20, -20, 86, -86, 90, -90, 1e30F, -1e30F, 1e-30F};
  const std::vector<float> more = normal(60, 6);
  x.insert(x.end(), more.begin(), more.end());
  std::vector<float> out(x.size());
  const auto n = static_cast<std::int64_t>(x.size());
  kernel().silu(x.data(), n, out.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double wanted = x[i] / (1 + std::exp(-static_cast<double>(x[i])));
    const double lost = x[i] < -86 ? std::abs(static_cast<double>(x[i])) * 2e-38 : 0;
    EXPECT_NEAR(out[i], wanted, 1e-6 * std::abs(wanted) + lost) << x[i];
    float alone = 99;
    kernel().silu(x.data() + i, 1, &alone);
    EXPECT_EQ(alone, out[i]) << x[i];
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Dense,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

}  // namespace
}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

class Gather : public EachIsa {};

constexpr std::int64_t kRows = 40;

std::vector<std::int64_t> some_ids(std::int64_t count) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back(i * 7 % kRows);
  if (count > 1) ids[1] = kRows - 1;  // the last row, and the first twice
  if (count > 2) ids[2] = ids[0];
  return ids;
}

template <class Row>
void expect_gather_is_the_plain_sum(const Kernels& kernel) {
  for (std::int64_t width : kWidths) {
    for (std::int64_t count : {0, 1, 2, 5, 32, 100}) {
      const std::int64_t stride = width + (width % 3);
      // Exactly as long as the last row needs: reading past it is seen by the sanitizer.
      const auto values = rows<Row>((kRows - 1) * stride + width, 1);
      const std::vector<float> weights = normal(count, 2), before = normal(width, 3);
      const std::vector<std::int64_t> ids = some_ids(count);
      std::vector<float> out(static_cast<std::size_t>(width)), added = before;
      const RowSpan span{stride, width, 0, width};
      kernel.rows<Row>().gather(values.data(), span, ids.data(), weights.data(), count, 0,
                                out.data());
      kernel.rows<Row>().gather_add(values.data(), span, ids.data(), weights.data(), count, 0,
                                    added.data());
      for (std::int64_t c = 0; c < width; ++c) {
        double sum = 0, size = 0;
        for (std::int64_t i = 0; i < count; ++i) {
          const auto u = static_cast<std::size_t>(i);
          const double term = static_cast<double>(weights[u]) *
                              to_float(values[static_cast<std::size_t>(ids[u] * stride + c)]);
          sum += term;
          size += std::abs(term);
        }
        const double tolerance = 6e-8 * static_cast<double>(count + 2) * (size + 3);
        const auto u = static_cast<std::size_t>(c);
        ASSERT_NEAR(out[u], sum, tolerance) << "width " << width << " count " << count;
        ASSERT_NEAR(added[u], sum + before[u], tolerance)
            << "width " << width << " count " << count;
      }
    }
  }
}

TEST_P(Gather, IsThePlainSumAroundTheVectorWidth) {
  expect_gather_is_the_plain_sum<float>(kernel());
  expect_gather_is_the_plain_sum<BFloat16>(kernel());
}

template <class Row>
void expect_dots_are_plain(const Kernels& kernel) {
  for (std::int64_t width : kWidths) {
    for (std::int64_t count : {0, 1, 20, 23}) {
      const auto values = rows<Row>(kRows * width, 4);
      const std::vector<float> x = normal(width, 5);
      const std::vector<std::int64_t> ids = some_ids(count);
      std::vector<float> out(static_cast<std::size_t>(count), 99);
      kernel.rows<Row>().dots(values.data(), {width, width, 0, width}, ids.data(), count, 0,
                              x.data(), out.data());
      for (std::size_t i = 0; i < ids.size(); ++i) {
        double sum = 0, size = 0;
        for (std::int64_t c = 0; c < width; ++c) {
          const double term = static_cast<double>(x[static_cast<std::size_t>(c)]) *
                              to_float(values[static_cast<std::size_t>(ids[i] * width + c)]);
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(out[i], sum, 6e-8 * static_cast<double>(width + 2) * size) << "width " << width;
      }
    }
  }
}

TEST_P(Gather, DotsArePlainAroundTheVectorWidth) {
  expect_dots_are_plain<float>(kernel());
  expect_dots_are_plain<BFloat16>(kernel());
}

TEST_P(Gather, AColumnHasTheSameBitsInARowOfAnyWidth) {
  const std::int64_t count = 50;
  const std::vector<float> weights = normal(count, 2), values = normal(kRows * 300, 1);
  const std::vector<std::int64_t> ids = some_ids(count);
  std::vector<float> whole(300), part(17);
  kernel().f32.gather(values.data(), {300, 300, 0, 300}, ids.data(), weights.data(), count, 0,
                      whole.data());
  kernel().f32.gather(values.data(), {300, 300, 131, 17}, ids.data(), weights.data(), count, 0,
                      part.data());
  for (std::size_t c = 0; c < part.size(); ++c) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(part[c]), std::bit_cast<std::uint32_t>(whole[131 + c]));
  }
}

TEST_P(Gather, RowsThatFollowChangeNothing) {
  const std::vector<float> weights = normal(100, 2), values = normal(kRows * 100, 1);
  const std::vector<std::int64_t> ids = some_ids(100);
  const RowSpan span{100, 100, 0, 100};
  std::vector<float> alone(100), with(100), dots_alone(30), dots_with(30);
  kernel().f32.gather(values.data(), span, ids.data(), weights.data(), 30, 0, alone.data());
  kernel().f32.gather(values.data(), span, ids.data(), weights.data(), 30, 70, with.data());
  EXPECT_EQ(alone, with);
  kernel().f32.dots(values.data(), span, ids.data(), 30, 0, values.data(), dots_alone.data());
  kernel().f32.dots(values.data(), span, ids.data(), 30, 70, values.data(), dots_with.data());
  EXPECT_EQ(dots_alone, dots_with);
}

TEST_P(Gather, OfRowsInACacheHasTheSameBits) {
  for (std::int64_t width : kWidths) {
    const auto values = rows<float>(kRows * width, 1);
    for (std::int64_t count : {0, 1, 7, 8, 16, 45}) {
      const std::vector<float> weights = normal(count, 2);
      const std::vector<std::int64_t> ids = some_ids(count);
      std::vector<float> wanted(static_cast<std::size_t>(width), 9), out = wanted;
      kernel().f32.gather(values.data(), {width, width, 0, width}, ids.data(), weights.data(),
                          count, 0, wanted.data());
      kernel().gather_cached(values.data(), width, ids.data(), weights.data(), count, out.data());
      ASSERT_EQ(out, wanted) << "width " << width << " count " << count;
      kernel().f32.gather_add(values.data(), {width, width, 0, width}, ids.data(), weights.data(),
                              count, 0, wanted.data());
      kernel().gather_cached_add(values.data(), width, ids.data(), weights.data(), count,
                                 out.data());
      ASSERT_EQ(out, wanted) << "added, width " << width << " count " << count;
    }
  }
}

TEST_P(Gather, ADotDependsOnItsRowAlone) {
  const std::vector<float> values = normal(kRows * 100, 1), x = normal(100, 3);
  const std::vector<std::int64_t> ids = some_ids(23);
  const RowSpan span{100, 100, 0, 100};
  std::vector<float> together(23);
  kernel().f32.dots(values.data(), span, ids.data(), 23, 0, x.data(), together.data());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    float alone = 0;
    kernel().f32.dots(values.data(), span, ids.data() + i, 1, 0, x.data(), &alone);
    EXPECT_EQ(alone, together[i]) << i;
  }
}

template <class Row>
void expect_plain_dots_in_order(const RowKernels<Row>& kernel) {
  for (std::int64_t width : kWidths) {
    for (std::int64_t count : {0, 1, 8, 23}) {
      const auto matrix = rows<Row>(count * width, 9);
      const std::vector<float> x = normal(width, 10);
      std::vector<float> out(static_cast<std::size_t>(count), 99);
      kernel.dots_in_order(matrix.data(), width, count, x.data(), out.data());
      for (std::int64_t i = 0; i < count; ++i) {
        double sum = 0, size = 0;
        for (std::int64_t c = 0; c < width; ++c) {
          const double term = static_cast<double>(x[static_cast<std::size_t>(c)]) *
                              to_float(matrix[static_cast<std::size_t>(i * width + c)]);
          sum += term;
          size += std::abs(term);
        }
        const float got = out[static_cast<std::size_t>(i)];
        ASSERT_NEAR(got, sum, 6e-8 * static_cast<double>(width + 2) * size) << "width " << width;
        float alone = 99;
        kernel.dots_in_order(matrix.data() + i * width, width, 1, x.data(), &alone);
        ASSERT_EQ(alone, got) << i;
      }
    }
  }
}

TEST_P(Gather, DotsInOrderArePlainAndDependOnTheirRowAlone) {
  expect_plain_dots_in_order(kernel().f32);
  expect_plain_dots_in_order(kernel().bf16);
}

TEST_P(Gather, SquaredNormIsExactToFloat64) {
  for (std::int64_t width : kWidths) {
    const std::vector<float> x = normal(width, 6);
    double wanted = 0;
    for (float value : x) wanted += static_cast<double>(value) * value;
    EXPECT_NEAR(kernel().squared_norm(x.data(), width), wanted, 1e-13 * (wanted + 1));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Gather,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

}  // namespace
}  // namespace memlayers::kernels

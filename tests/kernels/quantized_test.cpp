// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kRows = 20;
// Around the blocks of 64 columns, the groups of 32 and the 256 columns of eight scales.
const std::vector<std::int64_t> kQuantizedWidths = {1,   5,   31,  32,  33,  63,  64,  65, 96,
                                                    127, 128, 200, 256, 257, 320, 511, 512};

// Rows as they are stored and as they read.
template <class Row>
struct Table {
  std::int64_t width, stride;
  std::vector<Row> bytes;
  std::vector<float> values, read;
  Table(std::int64_t the_width, unsigned seed)
      : width(the_width),
        stride(quantized_row_bytes<Row>(the_width)),
        bytes(static_cast<std::size_t>(kRows * stride)),
        values(normal(kRows * the_width, seed)),
        read(values.size()) {
    for (std::int64_t row = 0; row < kRows; ++row) {
      quantize(values.data() + row * width, width, bytes.data() + row * stride);
      dequantize(bytes.data() + row * stride, width, read.data() + row * width);
    }
  }
  RowSpan span(std::int64_t first, std::int64_t columns) const {
    return {stride, width, first, columns};
  }
  double at(std::int64_t row, std::int64_t column) const {
    return read[static_cast<std::size_t>(row * width + column)];
  }
};

template <class Row>
void expect_near(std::int64_t group, double steps, bool both_ends) {
  for (std::int64_t width : kQuantizedWidths) {
    const Table<Row> table(width, 1);
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t first = 0; first < width; first += group) {
        const std::int64_t end = std::min(width, first + group);
        double most = 0;
        const auto value = [&](std::int64_t c) {
          return static_cast<double>(table.values[static_cast<std::size_t>(row * width + c)]);
        };
        for (std::int64_t c = first; c < end; ++c) most = std::max(most, std::abs(value(c)));
        // Half a step where the scale is exact; Int4's far end may be cut by a whole step, and its
        // scale has eight bits.
        const double step = most / steps;
        const double tolerance = both_ends ? 0.5001 * step : 1.04 * step;
        for (std::int64_t c = first; c < end; ++c) {
          ASSERT_NEAR(table.at(row, c), value(c), tolerance)
              << "width " << width << " column " << c;
        }
      }
    }
  }
}

TEST(Quantized, ARowReadsWithinHalfAStep) {
  expect_near<Int8>(1 << 20, 127, true);
  expect_near<Int4>(kInt4Group, 8, false);
}

TEST(Quantized, WhatWasReadQuantizesToItself) {
  for (std::int64_t width : kQuantizedWidths) {
    const Table<Int8> table(width, 2);
    std::vector<Int8> again(table.bytes.size());
    std::vector<float> read(table.read.size());
    for (std::int64_t row = 0; row < kRows; ++row) {
      quantize(table.read.data() + row * width, width, again.data() + row * table.stride);
      dequantize(again.data() + row * table.stride, width, read.data() + row * width);
    }
    for (std::size_t i = 0; i < read.size(); ++i) {
      ASSERT_NEAR(read[i], table.read[i], 1e-6 * std::abs(table.read[i])) << "width " << width;
    }
  }
}

TEST(Quantized, ZerosAndTinyNumbersStayFinite) {
  for (float x : {0.0F, 1e-44F, -1e-39F, 1e38F}) {
    const std::vector<float> row(70, x);
    std::vector<Int8> eight(static_cast<std::size_t>(quantized_row_bytes<Int8>(70)));
    std::vector<Int4> four(static_cast<std::size_t>(quantized_row_bytes<Int4>(70)));
    std::vector<float> read(70);
    quantize(row.data(), 70, eight.data());
    dequantize(eight.data(), 70, read.data());
    for (float y : read) EXPECT_NEAR(y, x, std::abs(x) * 0.01 + 1e-40);
    quantize(row.data(), 70, four.data());
    dequantize(four.data(), 70, read.data());
    for (float y : read) EXPECT_NEAR(y, x, std::abs(x) * 0.01 + 2e-39);
  }
}

class QuantizedReads : public EachIsa {};

std::vector<std::int64_t> some_ids(std::int64_t count) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back((i * 7 + 3) % kRows);
  if (count > 2) ids[2] = ids[0];
  return ids;
}

// What rounding the factors of sixteen rows at a time, weight times scale, to whole numbers beside
// the greatest of them may cost a column.
template <class Row>
double rounding(const Table<Row>& table, const std::vector<std::int64_t>& ids,
                const std::vector<float>& weights) {
  constexpr std::size_t kAtOnce = 16;
  double sum = 0;
  for (std::size_t first = 0; first < ids.size(); first += kAtOnce) {
    double most = 0;  // of a row's numbers times its weight: the factor times 127 or 8
    for (std::size_t i = first; i < std::min(ids.size(), first + kAtOnce); ++i) {
      for (std::int64_t c = 0; c < table.width; ++c) {
        most = std::max(most, std::abs(static_cast<double>(weights[i]) * table.at(ids[i], c)));
      }
    }
    sum += kAtOnce * most / 65534 * 1.01;
  }
  return sum;
}

template <class Row>
void expect_reads(const Kernels& kernel, std::int64_t width, std::int64_t first,
                  std::int64_t columns) {
  const Table<Row> table(width, 3);
  const RowSpan span = table.span(first, columns);
  for (std::int64_t count : {0, 1, 3, 8, 21, 47}) {
    const std::vector<float> weights = normal(count, 4), x = normal(columns, 5);
    const std::vector<float> before = normal(columns, 6);
    const std::vector<std::int64_t> ids = some_ids(count);
    std::vector<float> out(static_cast<std::size_t>(columns), 77), added = before;
    std::vector<float> dots(static_cast<std::size_t>(count));
    const auto& reads = kernel.rows<Row>();
    reads.gather(table.bytes.data(), span, ids.data(), weights.data(), count, 0, out.data());
    reads.gather_add(table.bytes.data(), span, ids.data(), weights.data(), count, 0, added.data());
    reads.dots(table.bytes.data(), span, ids.data(), count, 0, x.data(), dots.data());
    // Int4 sums s u and 8 s apart: terms of up to twice the size.
    const double unit = 6e-8 * static_cast<double>(count + 4) * 4;
    const double rounded = rounding(table, ids, weights);
    for (std::size_t c = 0; c < out.size(); ++c) {
      double sum = 0, size = 1;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        sum += weights[i] * table.at(ids[i], first + static_cast<std::int64_t>(c));
        size += std::abs(weights[i]) * 8;
      }
      ASSERT_NEAR(out[c], sum, unit * size + rounded) << "width " << width << " column " << c;
      ASSERT_NEAR(added[c], sum + before[c], unit * (size + 3) + rounded) << "width " << width;
    }
    for (std::size_t i = 0; i < ids.size(); ++i) {
      double sum = 0;
      for (std::size_t c = 0; c < x.size(); ++c) {
        sum += x[c] * table.at(ids[i], first + static_cast<std::int64_t>(c));
      }
      ASSERT_NEAR(dots[i], sum, 6e-8 * 8 * static_cast<double>(columns + 8)) << "width " << width;
    }
  }
}

TEST_P(QuantizedReads, AreThoseOfTheRowsAsTheyRead) {
  for (std::int64_t width : kQuantizedWidths) {
    expect_reads<Int8>(kernel(), width, 0, width);
    expect_reads<Int4>(kernel(), width, 0, width);
  }
}

// Then rounding costs nothing, and the sums are exact but for the last step.
TEST_P(QuantizedReads, OfEqualFactorsAreExact) {
  constexpr std::int64_t kWidth = 300;
  std::vector<float> rows = normal(kRows * kWidth, 1);
  for (std::int64_t i = 0; i < kRows * kWidth; ++i) {
    float& x = rows[static_cast<std::size_t>(i)];
    x = i % kWidth % kInt4Group == 0 ? -4 : std::clamp(std::nearbyint(x), -3.F, 3.F);
  }
  const std::vector<std::int64_t> ids = some_ids(21);
  std::vector<float> weights(21, 0.5F);
  for (std::size_t i = 0; i < weights.size(); i += 3) weights[i] = -0.5F;
  const auto expect = [&]<class Row>(Row /*of a type*/) {
    const std::int64_t stride = quantized_row_bytes<Row>(kWidth);
    std::vector<Row> bytes(static_cast<std::size_t>(kRows * stride));
    for (std::int64_t r = 0; r < kRows; ++r) {
      quantize(rows.data() + r * kWidth, kWidth, bytes.data() + r * stride);
    }
    std::vector<float> out(kWidth), read(kWidth);
    kernel().rows<Row>().gather(bytes.data(), {stride, kWidth, 0, kWidth}, ids.data(),
                                weights.data(), 21, 0, out.data());
    std::vector<double> wanted(kWidth);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      dequantize(bytes.data() + ids[i] * stride, kWidth, read.data());
      for (std::size_t c = 0; c < read.size(); ++c) wanted[c] += weights[i] * read[c];
    }
    for (std::size_t c = 0; c < out.size(); ++c) EXPECT_NEAR(out[c], wanted[c], 1e-5) << c;
  };
  expect(Int8{});
  expect(Int4{});
}

TEST_P(QuantizedReads, OfWeightsThatAreNoNumbersAreNone) {
  const Table<Int8> eight(300, 3);
  const Table<Int4> four(300, 3);
  const std::vector<std::int64_t> ids = some_ids(21);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()}) {
    for (std::size_t place : {0U, 7U, 12U, 17U, 20U}) {
      std::vector<float> weights = normal(21, 4), out(300);
      weights[place] = bad;
      const auto expect_none = [&] {
        for (float x : out) EXPECT_FALSE(std::isfinite(x)) << bad << " at " << place;
      };
      kernel().i8.gather(eight.bytes.data(), eight.span(0, 300), ids.data(), weights.data(), 21, 0,
                         out.data());
      expect_none();
      kernel().i4.gather(four.bytes.data(), four.span(0, 300), ids.data(), weights.data(), 21, 0,
                         out.data());
      expect_none();
    }
  }
}

TEST_P(QuantizedReads, OfWeightsOfAnySizeAreThoseOfTheRows) {
  const Table<Int8> eight(70, 3);
  const Table<Int4> four(70, 3);
  const std::vector<std::int64_t> ids = some_ids(8);
  for (float size : {0.F, 1e-42F, 1e-36F, 1e-20F, 1e20F, 1e36F}) {
    std::vector<float> weights = normal(8, 4), out(70);
    for (float& weight : weights) weight *= size;
    const auto expect = [&](const auto& table) {
      const double tolerance = rounding(table, ids, weights) + 1e-5 * size + 1e-33;
      for (std::size_t c = 0; c < out.size(); ++c) {
        double sum = 0;
        for (std::size_t i = 0; i < ids.size(); ++i) {
          sum += static_cast<double>(weights[i]) * table.at(ids[i], static_cast<std::int64_t>(c));
        }
        EXPECT_NEAR(out[c], sum, tolerance) << "weights of " << size;
      }
    };
    kernel().i8.gather(eight.bytes.data(), eight.span(0, 70), ids.data(), weights.data(), 8, 0,
                       out.data());
    expect(eight);
    kernel().i4.gather(four.bytes.data(), four.span(0, 70), ids.data(), weights.data(), 8, 0,
                       out.data());
    expect(four);
  }
}

TEST_P(QuantizedReads, CanBeginInsideARow) {
  expect_reads<Int8>(kernel(), 130, 17, 100);
  for (std::int64_t first : {64, 128, 256, 320}) {
    for (std::int64_t columns : {1, 33, 64, 100, 128}) {
      expect_reads<Int4>(kernel(), 450, first, columns);
    }
  }
}

TEST_P(QuantizedReads, ScreenSumsProductsOfWholeNumbers) {
  for (std::int64_t width : kQuantizedWidths) {
    const Table<Int8> table(width, 3);
    std::vector<std::int8_t> query(static_cast<std::size_t>(round_up(width, kScreenColumns)));
    for (std::int64_t c = 0; c < width; ++c) {
      query[static_cast<std::size_t>(c)] =
          static_cast<std::int8_t>(c % 3 == 0 ? -127 : c % 255 - 127);
    }
    std::vector<std::int32_t> got(kRows);
    kernel().screen(table.bytes.data(), table.stride, kRows, query.data(), width, got.data());
    for (std::int64_t row = 0; row < kRows; ++row) {
      std::int32_t wanted = 0;
      for (std::int64_t c = 0; c < width; ++c) {
        wanted += query[static_cast<std::size_t>(c)] *
                  table.bytes[static_cast<std::size_t>(row * table.stride + c)].bits;
      }
      ASSERT_EQ(got[static_cast<std::size_t>(row)], wanted) << "width " << width << " row " << row;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, QuantizedReads,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

}  // namespace
}  // namespace memlayers::kernels

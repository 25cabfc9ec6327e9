// SPDX-License-Identifier: Apache-2.0
#include "dist/pool_layout.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "kernels/kernels.h"
#include "support/testing.h"

namespace memlayers::dist {
namespace {

using kernels::kDotBlock;

const std::int64_t kWidths[] = {1, 31, 32, 33, 64, 100, 256, 500, 512, 768, 1024, 2050};
const int kParts[] = {1, 2, 3, 4, 5, 7, 8, 16};

TEST(PoolLayout, EveryColumnHasOneOwnerAndNoOwnerMoreThanABlockTooMany) {
  for (const std::int64_t width : kWidths) {
    for (const int parts : kParts) {
      const PoolLayout layout(100, width, {.column_parts = parts});
      EXPECT_EQ(layout.first_column(0), 0);
      EXPECT_EQ(layout.first_column(parts), width);
      for (int part = 0; part < parts; ++part) {
        const std::int64_t first = layout.first_column(part);
        EXPECT_TRUE(first % kDotBlock == 0 || first == width) << first << " of " << width;
        EXPECT_GE(layout.columns(part), 0);
        EXPECT_LT(layout.columns(part), width / parts + 2 * kDotBlock);
      }
    }
  }
}

TEST(PoolLayout, EverySlotHasOneOwner) {
  const PoolLayout layout(103, 64, {.column_parts = 2, .row_parts = 4});
  EXPECT_EQ(layout.processes(), 8);
  std::vector<int> owners(103);
  for (int process = 0; process < 8; ++process) {
    EXPECT_EQ(layout.columns(layout.column_part_of(process)), 32);
    EXPECT_EQ(layout.first_column(layout.column_part_of(process)), process % 2 == 0 ? 0 : 32);
    const int row_part = layout.row_part_of(process);
    for (std::int64_t row = 0; row < layout.rows(row_part); ++row) {
      ++owners.at(static_cast<std::size_t>(row_part + row * layout.row_parts()));
    }
  }
  for (const int count : owners) EXPECT_EQ(count, 2);  // one for each part of the columns
}

TEST(PoolLayout, NodesCoverAPartAndAreFew) {
  for (const std::int64_t width : kWidths) {
    for (const int parts : kParts) {
      const PoolLayout layout(100, width, {.column_parts = parts});
      for (int part = 0; part < parts; ++part) {
        std::int64_t at = layout.first_column(part);
        const auto nodes = layout.nodes(part);
        for (const DotNode& node : nodes) {
          EXPECT_EQ(node.first, at);
          EXPECT_GT(node.width, 0);
          at += node.width;
        }
        EXPECT_EQ(at, layout.first_column(part + 1));
        EXPECT_LE(nodes.size(), 10U);
      }
    }
  }
  EXPECT_EQ(PoolLayout(9, 768, {.column_parts = 4}).nodes(1).size(), 2U);
  EXPECT_EQ(PoolLayout(9, 512, {.column_parts = 4}).nodes(1).size(), 1U);
}

TEST(PoolLayout, SlicesOfADotSumToTheBitsOfTheWholeRow) {
  std::mt19937 generator(3);
  std::normal_distribution<float> normal;
  for (const kernels::Kernels* kernel : kernels::supported()) {
    for (const std::int64_t width : kWidths) {
      std::vector<float> row(static_cast<std::size_t>(width)), x(row.size());
      for (float& number : row) number = normal(generator);
      for (float& number : x) number = normal(generator);
      const std::int64_t id = 0;
      const auto dot = [&](std::int64_t first, std::int64_t columns) {
        float out = 0;
        kernel->f32.dots(row.data(), {width, width, first, columns}, &id, 1, 0, x.data() + first,
                         &out);
        return out;
      };
      for (const int parts : kParts) {
        const PoolLayout layout(1, width, {.column_parts = parts});
        const auto add = [](float left, float right) { return left + right; };
        DotSum<float, decltype(add)> sum(add);
        for (int part = 0; part < parts; ++part) {
          for (const DotNode& node : layout.nodes(part)) {
            sum.push(node, dot(node.first, node.width));
          }
        }
        EXPECT_EQ(std::bit_cast<std::uint32_t>(sum.total()),
                  std::bit_cast<std::uint32_t>(dot(0, width)))
            << kernel->isa << ", width " << width << " in " << parts;
      }
    }
  }
}

TEST(PoolLayout, ColumnsAreSplitAsLongAsASliceKeepsACacheLinePair) {
  const auto split = [](std::int64_t width, std::int64_t bytes, int processes) {
    const PoolSplit s = choose_split(width, bytes, processes);
    return std::pair(s.column_parts, s.row_parts);
  };
  EXPECT_EQ(split(768, 4, 1), std::pair(1, 1));
  EXPECT_EQ(split(768, 4, 5), std::pair(5, 1));
  EXPECT_EQ(split(64, 4, 8), std::pair(2, 4));
  EXPECT_EQ(split(64, 2, 8), std::pair(1, 8));
  EXPECT_EQ(split(128, 2, 6), std::pair(2, 3));
  EXPECT_EQ(split(16, 4, 3), std::pair(1, 3));
}

TEST(PoolLayout, RefusesASplitWithoutParts) {
  EXPECT_TRUE(memlayers::testing::says(
      memlayers::testing::error_of([] { PoolLayout(1, 1, {.column_parts = 0, .row_parts = 2}); }),
      {"at least one part", "got 0 and 2"}));
}

}  // namespace
}  // namespace memlayers::dist

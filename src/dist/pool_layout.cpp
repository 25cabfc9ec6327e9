// SPDX-License-Identifier: Apache-2.0
#include "dist/pool_layout.h"

#include <algorithm>
#include <bit>
#include <string>

#include "kernels/kernels.h"

namespace memlayers {

PoolSplit choose_split(std::int64_t width, std::int64_t element_bytes, int processes) {
  constexpr std::int64_t kCacheLinePair = 128;
  const std::int64_t thinnest = std::max<std::int64_t>(1, kCacheLinePair / element_bytes);
  const std::int64_t most = std::max<std::int64_t>(1, width / thinnest);
  for (int columns = processes; columns > 1; --columns) {
    if (processes % columns == 0 && columns <= most) return {columns, processes / columns};
  }
  return {1, processes};
}

namespace dist {

using kernels::kDotBlock;

PoolLayout::PoolLayout(std::int64_t slots, std::int64_t width, PoolSplit split)
    : slots_(slots), width_(width), split_(split) {
  if (split.column_parts < 1 || split.row_parts < 1) {
    throw Error("pool: expected at least one part of columns and of rows, got " +
                std::to_string(split.column_parts) + " and " + std::to_string(split.row_parts));
  }
}

std::int64_t PoolLayout::blocks() const { return (width_ + kDotBlock - 1) / kDotBlock; }

std::int64_t PoolLayout::first_block(int column_part) const {
  const std::int64_t each = blocks() / split_.column_parts, more = blocks() % split_.column_parts;
  return each * column_part + std::min<std::int64_t>(column_part, more);
}

std::int64_t PoolLayout::first_column(int column_part) const {
  return std::min(width_, first_block(column_part) * kDotBlock);
}

std::vector<DotNode> PoolLayout::nodes(int column_part) const {
  std::int64_t block = first_block(column_part);
  const std::int64_t end = first_block(column_part + 1);
  if (split_.column_parts == 1) {  // the kernel sums a whole row by itself
    return {{static_cast<int>(std::bit_width(static_cast<std::uint64_t>(end))), 0, 0, width_}};
  }
  std::vector<DotNode> nodes;
  while (block < end) {
    int level = block == 0 ? 62 : std::countr_zero(static_cast<std::uint64_t>(block));
    while (level > 0 && block + (std::int64_t{1} << level) > end) --level;
    const std::int64_t next = block + (std::int64_t{1} << level), first = block * kDotBlock;
    nodes.push_back({level, block >> level, first, std::min(width_, next * kDotBlock) - first});
    block = next;
  }
  return nodes;
}

}  // namespace dist
}  // namespace memlayers

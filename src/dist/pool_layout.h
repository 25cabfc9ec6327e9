// SPDX-License-Identifier: Apache-2.0
// Which process of a memory group holds which part of the pool's table.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "memlayers/parallel.h"

namespace memlayers::dist {

// A node of the tree in which a dot product over a row is summed (kernels.h, dots): blocks
// [index << level, (index + 1) << level), as far as the row has them.
struct DotNode {
  int level;
  std::int64_t index;
  std::int64_t first, width;  // columns of the row
};

// Rows are dealt out in turn (slot s to row part s % row_parts), so that the load is even and a
// pool that grows moves none. Columns are cut between blocks of kDotBlock columns, as evenly as
// that allows; the last parts of a row with fewer blocks than parts have none.
class PoolLayout {
 public:
  // Throws Error for a split that is not of at least one part each.
  PoolLayout(std::int64_t slots, std::int64_t width, PoolSplit split);

  std::int64_t slots() const { return slots_; }
  std::int64_t width() const { return width_; }
  int column_parts() const { return split_.column_parts; }
  int row_parts() const { return split_.row_parts; }
  int processes() const { return split_.column_parts * split_.row_parts; }
  int column_part_of(int process) const { return process % split_.column_parts; }
  int row_part_of(int process) const { return process / split_.column_parts; }

  std::int64_t first_column(int column_part) const;
  std::int64_t columns(int column_part) const {
    return first_column(column_part + 1) - first_column(column_part);
  }
  std::int64_t rows(int row_part) const {
    return (slots_ - row_part + split_.row_parts - 1) / split_.row_parts;
  }

  // The fewest nodes that make up a part's columns, from left to right. All parts' nodes, added as
  // DotSum does, give the dot of the whole row, bit for bit.
  std::vector<DotNode> nodes(int column_part) const;

 private:
  std::int64_t blocks() const;
  std::int64_t first_block(int column_part) const;
  std::int64_t slots_, width_;
  PoolSplit split_;
};

// Adds the values of a row's nodes, given from left to right, in the order of the tree. Value: a
// number or a tensor; add(left, right) gives their sum.
template <class Value, class Add>
class DotSum {
 public:
  explicit DotSum(Add add) : add_(std::move(add)) {}
  void push(const DotNode& node, Value value) {
    Entry entry{node.level, node.index, std::move(value)};
    while (!stack_.empty() && stack_.back().level == entry.level && entry.index % 2 == 1) {
      entry = {entry.level + 1, entry.index / 2,
               add_(std::move(stack_.back().value), std::move(entry.value))};
      stack_.pop_back();
    }
    stack_.push_back(std::move(entry));
  }
  Value total() {  // at least one node was pushed
    Value sum = std::move(stack_.back().value);
    for (stack_.pop_back(); !stack_.empty(); stack_.pop_back()) {
      sum = add_(std::move(stack_.back().value), std::move(sum));
    }
    return sum;
  }

 private:
  struct Entry {
    int level;
    std::int64_t index;
    Value value;
  };
  Add add_;
  std::vector<Entry> stack_;
};

}  // namespace memlayers::dist

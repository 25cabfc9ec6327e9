// SPDX-License-Identifier: Apache-2.0
// Tables of a pool's rows (values, optimizer state, usage) as the first process of the memory group
// needs them to write a file: whole rows, a piece at a time, out of the parts of all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "memlayers/pool.h"

namespace memlayers::nn {

// The first process reads, and finishes; all others serve meanwhile. A pool that one process holds
// is read as it is.
class WholeRows {
 public:
  // Copies rows of this process's part, from `first` on, as many as fit into out.
  using ReadPart = std::function<void(std::int64_t first, std::span<std::byte> out)>;

  // A row of the table has the pool's columns of element_bytes each; where is_one_number, only one.
  WholeRows(const MemoryPool& pool, std::int64_t element_bytes, bool is_one_number, ReadPart read);

  bool is_first() const;
  // Rows of the whole table from slot `first` on, as many as fit into out. The first process's.
  void read(std::int64_t first, std::span<std::byte> out);
  void finish();
  // The others': answers until the first process has finished.
  void serve();

 private:
  struct Range {
    std::int64_t first, count;  // rows of a part
  };
  static Range rows_between(const PoolPart& part, std::int64_t first, std::int64_t count);
  std::int64_t row_bytes(const PoolPart& part) const;
  void put(const PoolPart& part, Range rows, std::span<const std::byte> from, std::int64_t first,
           std::span<std::byte> out) const;

  MemoryPool pool_;
  std::int64_t element_bytes_;
  bool is_one_number_;
  ReadPart read_;
};

}  // namespace memlayers::nn

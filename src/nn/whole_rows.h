// SPDX-License-Identifier: Apache-2.0
// Tables of a pool's rows (values, optimizer state, usage) as files have them: whole rows, in the
// order of their slots, out of the parts of all processes of a memory group and back into them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "memlayers/pool.h"

namespace memlayers::nn {

// All processes of the group call the same functions with the same ranges, together. A pool that
// one process holds is a group of one.
class WholeRows {
 public:
  struct Range {
    std::int64_t first = 0, count = 0;
  };
  // Copies rows of this process's part, from row `first` of it on, as many as fit.
  using ReadPart = std::function<void(std::int64_t first, std::span<std::byte> out)>;
  using WritePart = std::function<void(std::int64_t first, std::span<const std::byte> rows)>;

  // A row of the table has the pool's columns of element_bytes each; where is_one_number, only one.
  WholeRows(const MemoryPool& pool, std::int64_t element_bytes, bool is_one_number);

  int processes() const;
  int rank() const;
  std::int64_t row_bytes() const;  // of a whole row

  // Process p gets the whole rows of slots wanted[p]: this one in `out`. Needs memory for as many
  // rows again, and for its part of all that is wanted.
  void collect(std::span<const Range> wanted, const ReadPart& read, std::span<std::byte> out) const;
  // Process p has the whole rows of slots given[p]: each process keeps of all of them what its part
  // holds.
  void distribute(std::span<const Range> given, std::span<const std::byte> whole,
                  const WritePart& write) const;
  // Keeps of the whole rows of `slots` what this process's part holds; alone, without a message.
  void keep(Range slots, std::span<const std::byte> whole, const WritePart& write) const;

 private:
  static Range rows_between(const PoolPart& part, Range slots);
  std::int64_t row_bytes(const PoolPart& part) const;
  std::int64_t bytes_between(int process, Range slots) const;
  bool has_it(int process) const;
  void put(int process, Range slots, std::span<const std::byte> from,
           std::span<std::byte> whole) const;
  void take(int process, Range slots, std::span<const std::byte> whole,
            std::span<std::byte> to) const;
  template <class Copy>
  void for_pieces(int process, Range slots, const Copy& copy) const;

  MemoryPool pool_;
  std::int64_t element_bytes_;
  bool is_one_number_;
};

}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
// The bare memory accesses that set the limits of limits.h: nothing but loads, stores, prefetches
// and one addition a vector. One thread each, compiled for each vector width and chosen when the
// program starts. The sums are returned only so that no load can be left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace memlayers::bench {

// How the accesses are laid out in time; limits.cpp tries several and keeps the fastest.
struct StreamPlan {
  std::int64_t streams = 1;  // parts that are read side by side
  std::int64_t ahead = 0;    // bytes prefetched before they are read; 0: left to the processor
};

struct RowPlan {
  std::int64_t abreast = 1;  // rows that are read side by side, a piece of each in turn; at most 16
  std::int64_t ahead = 0;    // rows prefetched before they are read; 0: left to the processor
  std::int64_t lines = 4;    // cache lines of a piece: 1 or 4
  bool at_once = false;      // prefetch whole rows, else with each piece that is read one ahead
  bool to_second_level = false;  // prefetch into the second level of caches, else into the first
};

struct RowUpdatePlan {
  std::int64_t ahead = 0;  // rows prefetched before they are changed; 0: left to the processor
  std::int64_t piece = 0;  // bytes of a row of each table in turn; 0: whole rows
  bool to_second_level = false;
};

// A table of rows of `row_bytes`, one behind the other.
struct RowTable {
  std::byte* rows;
  std::int64_t row_bytes;
};

// Reads [data, data + bytes); up to 256 * streams bytes at the end are left out.
std::uint64_t read_stream(const std::byte* data, std::int64_t bytes, StreamPlan plan);
// Adds one to every word in place: each byte is read and written.
void update_stream(std::byte* data, std::int64_t bytes, StreamPlan plan);
// Reads whole rows in the order of slots [count].
std::uint64_t read_rows(const std::byte* rows, std::int64_t row_bytes, const std::int64_t* slots,
                        std::int64_t count, RowPlan plan);
// Adds `added` to every word of the rows slots [count] of each table, in place.
void update_rows(std::span<const RowTable> tables, const std::int64_t* slots, std::int64_t count,
                 RowUpdatePlan plan, std::uint64_t added);

}  // namespace memlayers::bench

// SPDX-License-Identifier: Apache-2.0
// Reading mapped rows before they are touched. A page fault waits for one page at a time; these
// have many reads in flight. All of it is a wish: what the system cannot do is left to page faults.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace memlayers::pool {

// Starts reading the pages of rows slots[i] of a mapped table, without waiting for them. Rows are
// `row_bytes` wide and contiguous; slots come in any order, repeated or not. Requires
// 0 <= slots[i] < table.size() / row_bytes.
void prefetch_rows(std::span<const std::byte> table, std::int64_t row_bytes,
                   std::span<const std::int64_t> slots);

// The same for neighbouring bytes.
void prefetch(std::span<const std::byte> bytes);

// The bytes that prefetch_rows() may bring into memory for one row: its pages.
std::int64_t prefetched_bytes(std::int64_t row_bytes);

}  // namespace memlayers::pool

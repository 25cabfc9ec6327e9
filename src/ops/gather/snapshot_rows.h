// SPDX-License-Identifier: Apache-2.0
// Reading the rows of a store's snapshot where they lie: in mapped chunks and in patches.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "io/mapped_read.h"
#include "memlayers/store.h"
#include "ops/gather/stored_rows.h"
#include "ops/parallel.h"

namespace memlayers::ops {

// What the kernels read: `ids` [T, J] are the rows' places, counted in elements from the first of
// them (so rows.stride is 1). Valid as long as the snapshot.
struct FoundRows {
  RowsView rows;
  at::Tensor ids;
};

// The rows of `slots` [T, J]. Checks the arguments of gather; throws IndexError for a slot outside
// the snapshot, and Error where a row read for the first time has another checksum.
FoundRows find_rows(const char* op, const Snapshot& snapshot, const at::Tensor& slots,
                    const at::Tensor& weights);

// parallel_ranges() for an f that reads rows, which may be mapped: it keeps to what
// io::read_mapped() asks of it.
template <class F>
void parallel_reads(std::int64_t count, std::int64_t item_work, const F& f) {
  parallel_ranges(count, item_work, [&](std::int64_t begin, std::int64_t end) {
    io::read_mapped([&] { f(begin, end); });
  });
}

}  // namespace memlayers::ops

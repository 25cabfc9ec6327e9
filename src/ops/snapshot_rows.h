// SPDX-License-Identifier: Apache-2.0
// Reading the rows of a store's snapshot where they lie: in mapped chunks and in patches.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "memlayers/store.h"
#include "ops/stored_rows.h"

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

// All rows of the pool in `folder` with its patches: [slots, width] float32 or bfloat16, or the
// bytes of rows of few bits. For Python. Throws Error.
at::Tensor read_store(std::string folder);

}  // namespace memlayers::ops

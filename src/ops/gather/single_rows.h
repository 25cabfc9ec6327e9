// SPDX-License-Identifier: Apache-2.0
// Single rows of a pool as numbers, read and written.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>
#include <string>

#include "memlayers/store.h"

namespace memlayers::ops {

// A row [width] of numbers as a pool stores it: float32 or bfloat16 rounded, few bits as
// quantize_rows(). [elements], contiguous, on the CPU. Throws ValueError for another shape and for
// what is not finite, also once it is rounded.
at::Tensor encode_row(const char* op, const at::Tensor& row, RowType type, std::int64_t width);
// Stored rows [n, elements] as numbers, [n, width] float32.
at::Tensor decode_rows(const at::Tensor& rows, RowType type, std::int64_t width);
// The same of bytes as a patch or a snapshot has them: rows without padding.
at::Tensor decode_rows(std::span<const std::byte> rows, RowType type, std::int64_t width);

// The rows of `slots` [n] int64 as numbers. Throws IndexError for a slot outside the pool.
at::Tensor rows_of(const Snapshot& snapshot, const at::Tensor& slots);
// Makes `slot` hold an encoded row, as a patch of one row whose note `what` says so; a row of zeros
// erases it. Returns the patch's id.
std::string write_row(Store& store, std::int64_t slot, const at::Tensor& encoded,
                      const std::string& what);

}  // namespace memlayers::ops

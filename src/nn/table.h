// SPDX-License-Identifier: Apache-2.0
// Tables as large as the pool (rows, optimizer state, usage): tensors in mappings of their own, in
// RAM or in a scratch file, and the windows in which a table in a file is worked through.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "ops/gather/stored_rows.h"
#include "pool/mapped_region.h"

namespace memlayers::nn {

inline at::ScalarType element_type(DenseType type) {
  return type == DenseType::kFloat32 ? at::kFloat : at::kBFloat16;
}
using ops::element_type;  // of rows

// Zeros on the CPU. In RAM, parts that are never written cost no memory (which at::zeros, writing
// them, does not give); with `folder`, in a scratch file there. Throws Error where there is no
// room.
struct Table {
  at::Tensor tensor;
  std::weak_ptr<const pool::MappedRegion> region;  // lives as long as the tensor's memory
};
Table make_table(at::IntArrayRef sizes, at::ScalarType type,
                 const std::optional<std::string>& folder);

// Starts reading rows slots[i] of tables in files, as pool::prefetch_rows() does.
void prefetch_rows(std::span<const at::Tensor> tables, std::span<const std::int64_t> slots);

// How many rows of all tables to read ahead of their use. More would hide no more of the wait, and
// could push out of a small memory what was read first.
std::int64_t rows_a_window(std::span<const at::Tensor> tables);

// f(begin, end) over parts of [0, items), in order, where item i uses rows
// slots[i * slots_an_item, (i + 1) * slots_an_item) of the tables, which lie in files: while one
// part is worked on, the rows of the next are read.
template <class F>
void for_each_window(std::span<const at::Tensor> tables, std::span<const std::int64_t> slots,
                     std::int64_t slots_an_item, const F& f) {
  if (slots.empty()) return f(std::int64_t{0}, std::int64_t{0});
  const auto items = static_cast<std::int64_t>(slots.size()) / slots_an_item;
  const std::int64_t at_once = std::max<std::int64_t>(1, rows_a_window(tables) / slots_an_item);
  const auto read = [&](std::int64_t begin) {
    const std::int64_t end = std::min(items, begin + at_once);
    if (begin < end) {
      prefetch_rows(tables, slots.subspan(begin * slots_an_item, (end - begin) * slots_an_item));
    }
  };
  read(0);
  for (std::int64_t begin = 0; begin < items; begin += at_once) {
    read(begin + at_once);
    f(begin, std::min(items, begin + at_once));
  }
}

inline std::span<const std::int64_t> as_span(const at::Tensor& slots) {  // int64, contiguous
  return {slots.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(slots.numel())};
}

inline std::span<const std::byte> bytes_of(const at::Tensor& tensor) {  // contiguous
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace memlayers::nn

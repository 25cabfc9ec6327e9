// SPDX-License-Identifier: Apache-2.0
#include "ops/snapshot_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <string>

#include "ops/check.h"
#include "ops/parallel.h"
#include "pool/overlay.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::ops {

FoundRows find_rows(const char* op, const Snapshot& snapshot, const at::Tensor& slots_in,
                    const at::Tensor& weights) {
  check_dim(op, "slots", slots_in, 2);
  check_type(op, "slots", slots_in, {at::kLong});
  check_type(op, "weights", weights, {at::kFloat});
  check_same_shape(op, "weights", weights, "slots", slots_in);
  const at::Tensor slots = slots_in.contiguous();
  check_slots(op, slots, snapshot.rows());
  FoundRows found{{nullptr, 1, snapshot.width(), snapshot.row_dtype()}, at::empty_like(slots)};
  if (slots.numel() == 0) return found;
  const auto* slot = slots.const_data_ptr<std::int64_t>();
  auto* id = found.ids.mutable_data_ptr<std::int64_t>();
  // Places in different files are compared as numbers: the kernels only add them up again.
  const auto place = [](const std::byte* row) { return reinterpret_cast<std::intptr_t>(row); };
  const std::byte* base = snapshot.row(slot[0]);
  const std::int64_t size = pool::row_format(snapshot.row_dtype(), snapshot.width()).element_bytes;
  constexpr std::int64_t kWork = 256;  // of finding a row, beside the numbers of one
  parallel_ranges(slots.numel(), kWork, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      id[i] = (place(snapshot.row(slot[i])) - place(base)) / size;
    }
  });
  found.rows.data = base;
  return found;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> read_store(std::string folder) {
  const Snapshot rows = StoreReader::open(folder).snapshot();
  const pool::RowFormat format = pool::row_format(rows.row_dtype(), rows.width());
  const at::ScalarType type = is_quantized(rows.row_dtype())          ? at::kByte
                              : rows.row_dtype() == RowType::kFloat32 ? at::kFloat
                                                                      : at::kBFloat16;
  at::Tensor values = at::empty({rows.rows(), format.elements}, type);
  rows.read(0, {static_cast<std::byte*>(values.mutable_data_ptr()), values.nbytes()});
  const auto patched = rows.sub_keys();
  const SubKeys& keys = patched == nullptr ? pool::Writes::none : *patched;
  const auto count = static_cast<std::int64_t>(keys.places.size());
  at::Tensor places = at::empty({count, 4}, at::kLong);
  at::Tensor numbers = at::empty({count, keys.width}, at::kFloat);
  std::ranges::copy(pool::place_bytes(keys), static_cast<std::byte*>(places.mutable_data_ptr()));
  std::ranges::copy(pool::number_bytes(keys), static_cast<std::byte*>(numbers.mutable_data_ptr()));
  return {values, places, numbers};
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#include "ops/gather/snapshot_rows.h"

#include <ATen/ops/empty_like.h>

#include "ops/parallel.h"
#include "ops/torch/check.h"
#include "pool/row_format.h"

namespace memlayers::ops {

FoundRows find_rows(const char* op, const Snapshot& snapshot, const at::Tensor& slots_in,
                    const at::Tensor& weights) {
  check_cpu(op, {{"slots", slots_in}, {"weights", weights}});
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

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#include "ops/gather/single_rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <cstring>
#include <span>

#include "memlayers/ops.h"
#include "ops/gather/stored_rows.h"
#include "ops/torch/check.h"
#include "pool/row_format.h"

namespace memlayers::ops {

at::Tensor encode_row(const char* op, const at::Tensor& row, RowType type, std::int64_t width) {
  TORCH_CHECK_VALUE(row.dim() == 1 && row.size(0) == width, op, ": expected a row [", width,
                    "], got ", row.sizes());
  check_type(op, "row", row, {at::kFloat, at::kBFloat16});
  const at::Tensor numbers = row.detach().to(at::kCPU).contiguous();
  const at::Tensor stored =
      is_quantized(type) ? numbers : numbers.to(element_type(type)).contiguous();
  TORCH_CHECK_VALUE(at::isfinite(stored).all().item<bool>(), op,
                    ": expected a row of finite numbers, got NaN or infinity");
  return is_quantized(type) ? quantize_rows(stored.unsqueeze(0), type).squeeze(0) : stored;
}

at::Tensor decode_rows(const at::Tensor& rows, RowType type, std::int64_t width) {
  return is_quantized(type) ? dequantize_rows(rows, type, width) : rows.to(at::kFloat);
}

at::Tensor decode_rows(std::span<const std::byte> rows, RowType type, std::int64_t width) {
  at::Tensor copy =
      at::empty({static_cast<std::int64_t>(rows.size()) / pool::row_format(type, width).bytes(),
                 pool::row_format(type, width).elements},
                at::TensorOptions().dtype(element_type(type)));
  if (!rows.empty()) std::memcpy(copy.mutable_data_ptr(), rows.data(), copy.nbytes());
  return decode_rows(copy, type, width);
}

at::Tensor rows_of(const Snapshot& snapshot, const at::Tensor& slots_in) {
  check_dim("rows_of", "slots", slots_in, 1);
  check_type("rows_of", "slots", slots_in, {at::kLong});
  const at::Tensor slots = slots_in.to(at::kCPU).contiguous();
  check_slots("rows_of", slots, snapshot.rows());
  const RowType type = snapshot.row_dtype();
  at::Tensor rows = at::empty({slots.size(0), pool::row_format(type, snapshot.width()).elements},
                              at::TensorOptions().dtype(element_type(type)));
  snapshot.read_rows(
      {slots.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(slots.numel())},
      {static_cast<std::byte*>(rows.mutable_data_ptr()), rows.nbytes()});
  return decode_rows(rows, type, snapshot.width());
}

std::string write_row(Store& store, std::int64_t slot, const at::Tensor& encoded,
                      const std::string& what) {
  const Snapshot now = store.snapshot();
  Patch patch{.id = new_patch_id(),
              .pool = now.pool_id(),
              .width = now.width(),
              .row_dtype = now.row_dtype()};
  patch.notes = {{"what", what + " slot " + std::to_string(slot)}};
  const at::Tensor row = decode_rows(encoded.unsqueeze(0), now.row_dtype(), now.width());
  if (row.count_nonzero().item<std::int64_t>() == 0) {
    patch.erased = {slot};
  } else {
    patch.slots = {slot};
    const auto* bytes = static_cast<const std::byte*>(encoded.const_data_ptr());
    patch.rows.assign(bytes, bytes + encoded.nbytes());
  }
  store.apply(patch);
  return patch.id;
}

}  // namespace memlayers::ops

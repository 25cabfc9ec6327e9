// SPDX-License-Identifier: Apache-2.0
#include "kernels/quantized.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include "memlayers/ops.h"
#include "ops/gather/stored_rows.h"
#include "ops/parallel.h"
#include "ops/torch/check.h"

namespace memlayers {
namespace {

// f with a null pointer of the row's type.
template <class F>
void dispatch_quantized(const char* op, RowType type, const F& f) {
  TORCH_CHECK_VALUE(is_quantized(type), op, ": expected rows of type int8 or int4, got ",
                    type == RowType::kFloat32 ? "float32" : "bfloat16");
  if (type == RowType::kInt8) {
    f(kernels::Int8{});
  } else {
    f(kernels::Int4{});
  }
}

}  // namespace

std::int64_t quantized_row_bytes(RowType type, std::int64_t width) {
  return type == RowType::kInt8 ? kernels::quantized_row_bytes<kernels::Int8>(width)
                                : kernels::quantized_row_bytes<kernels::Int4>(width);
}

at::Tensor quantize_rows(const at::Tensor& values_in, RowType type) {
  ops::check_dim("quantize_rows", "values", values_in, 2);
  ops::check_type("quantize_rows", "values", values_in, {at::kFloat, at::kBFloat16});
  const std::int64_t S = values_in.size(0), W = values_in.size(1);
  TORCH_CHECK_VALUE(W >= 1 && W <= ops::kMostWidth, "quantize_rows: expected a width in [1, ",
                    ops::kMostWidth, "], got ", W);
  at::Tensor out;
  dispatch_quantized("quantize_rows", type, [&]<class Row>(Row) {
    const std::int64_t stride = kernels::quantized_row_bytes<Row>(W);
    out = at::empty({S, stride}, at::TensorOptions().dtype(at::kByte));
    auto* rows = static_cast<Row*>(out.mutable_data_ptr());
    constexpr std::int64_t kAtOnce = 1024;  // a float32 copy of this many rows at a time
    for (std::int64_t first = 0; first < S; first += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, S - first);
      const at::Tensor part =
          values_in.narrow(0, first, count).detach().to(at::kCPU, at::kFloat).contiguous();
      TORCH_CHECK_VALUE(at::isfinite(part).all().item<bool>(),
                        "quantize_rows: expected finite values, got NaN or infinity in rows ",
                        first, " to ", first + count - 1);
      const float* data = part.const_data_ptr<float>();
      ops::parallel_ranges(count, 4 * W, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          kernels::quantize(data + i * W, W, rows + (first + i) * stride);
        }
      });
    }
  });
  return out;
}

at::Tensor dequantize_rows(const at::Tensor& rows_in, RowType type, std::int64_t width) {
  at::Tensor out;
  dispatch_quantized("dequantize_rows", type, [&]<class Row>(Row) {
    ops::check_quantized("dequantize_rows", rows_in, ops::bits_of_type(type), width);
    const at::Tensor rows = rows_in.to(at::kCPU).contiguous();
    const std::int64_t S = rows.size(0), stride = rows.size(1);
    out = at::empty({S, width}, at::TensorOptions().dtype(at::kFloat));
    const auto* from = static_cast<const Row*>(rows.const_data_ptr());
    auto* to = out.mutable_data_ptr<float>();
    ops::parallel_ranges(S, width, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        kernels::dequantize(from + i * stride, width, to + i * width);
      }
    });
  });
  return out;
}

}  // namespace memlayers

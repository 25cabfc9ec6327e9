// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>

#include "kernels/kernels.h"
#include "ops/gather/stored_rows.h"

namespace memlayers::ops {

// Calls f(rows, span) with a typed pointer to the rows and the span of columns [first, first +
// width) of them.
template <class F>
void dispatch_rows(const RowsView& rows, std::int64_t first, std::int64_t width, const F& f) {
  const kernels::RowSpan span{rows.stride, rows.width, first, width};
  switch (rows.type) {
    case RowType::kFloat32:
      return f(static_cast<const float*>(rows.data), span);
    case RowType::kBFloat16:
      return f(static_cast<const kernels::BFloat16*>(rows.data), span);
    case RowType::kInt8:
      return f(static_cast<const kernels::Int8*>(rows.data), span);
    case RowType::kInt4:
      return f(static_cast<const kernels::Int4*>(rows.data), span);
  }
}

template <class F>
void dispatch_rows(const StoredRows& values, std::int64_t first, std::int64_t width, const F& f) {
  dispatch_rows(view(values), first, width, f);
}

// The same for rows that are updated, which must be contiguous float32 or bfloat16.
template <class F>
void dispatch_mutable_rows(at::Tensor& values, const F& f) {
  if (values.scalar_type() == at::kFloat) {
    f(values.mutable_data_ptr<float>());
  } else {
    f(static_cast<kernels::BFloat16*>(values.mutable_data_ptr()));
  }
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>

#include "kernels/kernels.h"
#include "ops/stored_rows.h"

namespace memlayers::ops {

// Calls f(rows, span) with a typed pointer to the stored rows and the span of columns [first,
// first + width) of them.
template <class F>
void dispatch_rows(const StoredRows& values, std::int64_t first, std::int64_t width, const F& f) {
  const kernels::RowSpan span{values.data.size(1), values.width, first, width};
  const void* data = values.data.const_data_ptr();
  switch (values.type) {
    case RowType::kFloat32:
      return f(static_cast<const float*>(data), span);
    case RowType::kBFloat16:
      return f(static_cast<const kernels::BFloat16*>(data), span);
    case RowType::kInt8:
      return f(static_cast<const kernels::Int8*>(data), span);
    case RowType::kInt4:
      return f(static_cast<const kernels::Int4*>(data), span);
  }
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

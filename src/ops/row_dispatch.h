// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <type_traits>

#include "kernels/bfloat16.h"

namespace memlayers::ops {

// Calls f with a typed pointer to the rows of `values`, which must be contiguous float32 or
// bfloat16. Row is const where `values` is const.
template <class F>
void dispatch_rows(const at::Tensor& values, const F& f) {
  if (values.scalar_type() == at::kFloat) {
    f(values.const_data_ptr<float>());
  } else {
    f(static_cast<const kernels::BFloat16*>(values.const_data_ptr()));
  }
}

template <class F>
void dispatch_mutable_rows(at::Tensor& values, const F& f) {
  if (values.scalar_type() == at::kFloat) {
    f(values.mutable_data_ptr<float>());
  } else {
    f(static_cast<kernels::BFloat16*>(values.mutable_data_ptr()));
  }
}

}  // namespace memlayers::ops

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

namespace memlayers::ops {

// A tensor of numbers that lie elsewhere, must outlive it and are only read: at::from_blob has no
// const twin. Strides as at::from_blob's; none: one behind the other.
template <class Number>
at::Tensor borrowed(const Number* numbers, at::IntArrayRef sizes) {
  return at::from_blob(const_cast<Number*>(numbers), sizes,
                       at::TensorOptions().dtype(c10::CppTypeToScalarType<Number>::value));
}
template <class Number>
at::Tensor borrowed(const Number* numbers, at::IntArrayRef sizes, at::IntArrayRef strides) {
  return at::from_blob(const_cast<Number*>(numbers), sizes, strides,
                       at::TensorOptions().dtype(c10::CppTypeToScalarType<Number>::value));
}

}  // namespace memlayers::ops

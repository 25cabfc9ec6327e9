// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "memlayers/linear.h"
#include "ops/linear/weights.h"

namespace memlayers::nn {

// x W^T + b, bias [out] or undefined: what Linear computes. The one place that knows how tokens
// meet weights of each type: token by token (ops/linear/product.h), else torch's product, and of
// bfloat16 numbers on the CPU Float32Product where torch has no fast one.
at::Tensor project(const at::Tensor& x, const ops::Weights& weights, const at::Tensor& bias = {});

template <class Module>  // LinearImpl or EmbeddingImpl
ops::Weights weights_of(const Module& module) {
  return module.packed() != nullptr ? *module.packed() : ops::Weights(module.weight);
}

// What stands between products: silu(gate) * up, each rounded to their type; x * by; x in another
// type. Token by token without the dispatcher, whose code no cache holds where weights have just
// been read: together it costs a layer of a small decoder several hundredths.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
at::Tensor times(const at::Tensor& x, const at::Tensor& by);
at::Tensor as_type(const at::Tensor& x, at::ScalarType type);

}  // namespace memlayers::nn

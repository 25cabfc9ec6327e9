// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace memlayers::nn {

// Whether every number of the tensor is finite. On the CPU one pass at the rate of the memory.
bool all_finite(const at::Tensor& tensor);

// Throws Error "<what>: expected finite numbers, got NaN or infinity" unless they are.
void check_finite(const at::Tensor& tensor, const std::string& what);

// Of the logits [..., vocab_size] that a token is chosen by or scored with; what they are not, they
// have from the model, whose weights and rows were finite when they were read.
void check_logits(const at::Tensor& logits);

}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
// Which rows a memory of variant "ngram" reads: those that the last tokens hash to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "memlayers/config.h"

namespace memlayers::nn {

constexpr std::int64_t kNoToken = -1;  // before the first of a document

// How many tokens an n-gram memory sees, the longest suffix that it hashes; 0 for other models.
std::int64_t suffix_length(const ModelConfig& config);

// tokens [B, T] -> [B * T, length] int64: each token and those before it, the nearest first.
// document_begin [B, T]: LlamaImpl::hidden_states; undefined: each row is one document.
at::Tensor suffixes_of(const at::Tensor& tokens, const at::Tensor& document_begin,
                       std::int64_t length);

// The slot, below `slots`, of the n-gram `suffix` (the last token first) for one head of a layer:
// docs/formats.md, "Slots of n-grams".
std::int64_t ngram_slot(std::span<const std::int64_t> suffix, std::int64_t layer, std::int64_t head,
                        std::int64_t slots);

// The slots [T, heads, knn] of suffixes [T, >= knn + 1]: head h, place i: of the last i + 2 tokens.
at::Tensor ngram_slots(const at::Tensor& suffixes, std::int64_t layer, const MemoryConfig& config);

// sigmoid(factor * x . y) of each row [T, 1], of x's type. Token by token it depends on the row
// alone.
at::Tensor sigmoid_of_dots(const at::Tensor& x, const at::Tensor& y, double factor);

}  // namespace memlayers::nn

// SPDX-License-Identifier: Apache-2.0
// Weights in blocks of 32 numbers of 8 or 4 bits, as GGUF has them: in its files, and as tensors of
// bytes [rows, blocks of a row] in folders of ours (docs/formats.md).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "io/gguf/file.h"

namespace memlayers::io::gguf {

constexpr std::int64_t kBlockNumbers = 32;

// Q8_0, Q4_0 and Q4_1: those that are multiplied as they are.
const std::array<const TensorType*, 3>& multiplied_types();
bool is_multiplied(const TensorType& type);

// The one of these in which a row of `width` numbers takes so many bytes; null if none does.
const TensorType* type_of_row(std::int64_t width, std::int64_t bytes);

// Numbers [first, first + count) as they stand in a tensor: float32 out of blocks of several, else
// bytes as they are. Throws Error where the disk does not give them.
void copy_numbers(const Tensor& tensor, std::int64_t first, std::int64_t count, std::byte* out);

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
// The types of tensors in GGUF files: how many numbers stand in a block, in how many bytes, and
// what they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace memlayers::io::gguf {

struct TensorType {
  std::uint32_t id;  // as files have it
  std::string_view name;
  std::int64_t block_numbers, block_bytes;
  // Makes float32 of `blocks` blocks: rounded where, and as often as, PyPI's gguf.dequantize()
  // does. Null for a type of which only the size is known. Neither allocates nor throws, so that it
  // may run in read_mapped().
  void (*decode)(const std::byte* from, std::int64_t blocks, float* to) noexcept;
  // Back, as gguf.quantize() does; null for a type that is not written. What a float16 cannot hold
  // becomes infinity.
  void (*encode)(const float* from, std::int64_t blocks, std::byte* to) noexcept = nullptr;
};

// Null for a number that names no type.
const TensorType* find_type(std::uint32_t id);
const TensorType* find_type(std::string_view name);

inline constexpr std::uint32_t kTypeF32 = 0, kTypeF16 = 1, kTypeQ80 = 8, kTypeBF16 = 30;

}  // namespace memlayers::io::gguf

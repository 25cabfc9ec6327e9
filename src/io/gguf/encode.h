// SPDX-License-Identifier: Apache-2.0
// Back from float32: the types that are written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memlayers::io::gguf {

// The nearest one, of two the even one; a NaN stays one.
std::uint16_t bfloat16_of_float(float value) noexcept;

void encode_f32(const float* from, std::int64_t blocks, std::byte* to) noexcept;
void encode_f16(const float* from, std::int64_t blocks, std::byte* to) noexcept;
void encode_bf16(const float* from, std::int64_t blocks, std::byte* to) noexcept;
// d = max |x| / 127, q = x / d rounded, halves away from zero.
void encode_q8_0(const float* from, std::int64_t blocks, std::byte* to) noexcept;

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
// What the blocks of each type of tensor mean. A float16 d scales a block, a float16 m is added;
// types "K" have 256 numbers in parts with whole-number scales of their own. The layout of each
// stands beside its function, in the order of its bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace memlayers::io::gguf {

void decode_f32(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_f16(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_bf16(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q4_0(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q4_1(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q5_0(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q5_1(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q8_0(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q2_k(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q3_k(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q4_k(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q5_k(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_q6_k(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_iq4_nl(const std::byte* from, std::int64_t blocks, float* to) noexcept;
void decode_iq4_xs(const std::byte* from, std::int64_t blocks, float* to) noexcept;

}  // namespace memlayers::io::gguf

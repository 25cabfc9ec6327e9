// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/decode.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

#include "kernels/float16.h"

namespace memlayers::io::gguf {
namespace {

using Byte = std::uint8_t;

Byte byte_at(const std::byte* from, int at) { return std::to_integer<Byte>(from[at]); }

std::uint16_t bits16_at(const std::byte* from, int at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from + at, 2);
  return bits;
}

std::uint32_t bits32_at(const std::byte* from, int at) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, from + at, 4);
  return bits;
}

float half_at(const std::byte* from, int at) { return kernels::half_to_float(bits16_at(from, at)); }

// A block a call; N numbers in B bytes.
template <int N, int B, class Decode>
void each_block(const std::byte* from, std::int64_t blocks, float* to, const Decode& decode) {
  for (std::int64_t i = 0; i < blocks; ++i) decode(from + i * B, to + i * N);
}

// Number i of 32 whose lower four bits stand in 16 bytes: the low halves, then the high ones.
int nibble(const std::byte* from, int i) {
  return (byte_at(from, i % 16) >> (i < 16 ? 0 : 4)) & 15;
}

// Six bits each, of Q4_K and Q5_K: eight scales and eight minima in 12 bytes. The first four of
// either stand in the low bits of bytes 0..3 and 4..7; the others have their four low bits in bytes
// 8..11 and their two high bits above the first ones.
struct Scales {
  std::array<int, 8> scale, minimum;
};
Scales scales_at(const std::byte* from) {
  Scales all{};
  for (int j = 0; j < 4; ++j) {
    const int low = byte_at(from, j), middle = byte_at(from, 4 + j), rest = byte_at(from, 8 + j);
    const auto first = static_cast<std::size_t>(j);
    all.scale[first] = low & 63;
    all.minimum[first] = middle & 63;
    all.scale[first + 4] = (rest & 15) | ((low >> 6) << 4);
    all.minimum[first + 4] = (rest >> 4) | ((middle >> 6) << 4);
  }
  return all;
}

// Two bits of number i of 256: bytes of 32 numbers hold them at four places, twice.
int pair_of_bits(const std::byte* from, int i) {
  return (byte_at(from, 32 * (i / 128) + i % 32) >> (2 * (i / 32 % 4))) & 3;
}

constexpr std::array<float, 16> kIq4{-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace

void decode_f32(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  std::memcpy(to, from, static_cast<std::size_t>(blocks) * 4);
}

void decode_f16(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<1, 2>(from, blocks, to, [](const std::byte* b, float* x) { *x = half_at(b, 0); });
}

void decode_bf16(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<1, 2>(from, blocks, to, [](const std::byte* b, float* x) {
    *x = std::bit_cast<float>(std::uint32_t{bits16_at(b, 0)} << 16);
  });
}

// d, 16 bytes: x = d (q - 8).
void decode_q4_0(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 18>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; ++i) x[i] = d * static_cast<float>(nibble(b + 2, i) - 8);
  });
}

// d, m, 16 bytes: x = d q + m.
void decode_q4_1(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 20>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0), m = half_at(b, 2);
    for (int i = 0; i < 32; ++i) x[i] = d * static_cast<float>(nibble(b + 4, i)) + m;
  });
}

// d, 32 fifth bits, 16 bytes: x = d (q - 16).
void decode_q5_0(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 22>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0);
    const std::uint32_t high = bits32_at(b, 2);
    for (int i = 0; i < 32; ++i) {
      const int q = nibble(b + 6, i) | static_cast<int>((high >> i) & 1u) << 4;
      x[i] = d * static_cast<float>(q - 16);
    }
  });
}

// d, m, 32 fifth bits, 16 bytes: x = d q + m.
void decode_q5_1(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 24>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0), m = half_at(b, 2);
    const std::uint32_t high = bits32_at(b, 4);
    for (int i = 0; i < 32; ++i) {
      const int q = nibble(b + 8, i) | static_cast<int>((high >> i) & 1u) << 4;
      x[i] = d * static_cast<float>(q) + m;
    }
  });
}

// d, 32 signed bytes: x = d q.
void decode_q8_0(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 34>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; ++i) {
      x[i] = static_cast<float>(static_cast<std::int8_t>(byte_at(b, 2 + i))) * d;
    }
  });
}

// 16 bytes of a scale and a minimum of 16 numbers, 64 bytes of two bits, d, m:
// x = (d scale) q - m minimum.
void decode_q2_k(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<256, 84>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 80), m = half_at(b, 82);
    for (int part = 0; part < 16; ++part) {
      const int both = byte_at(b, part);
      const float scale = d * static_cast<float>(both & 15);
      const float minimum = m * static_cast<float>(both >> 4);
      for (int i = 16 * part; i < 16 * part + 16; ++i) {
        x[i] = scale * static_cast<float>(pair_of_bits(b + 16, i)) - minimum;
      }
    }
  });
}

// 32 bytes of third bits, which stand for 0 where they are set, else for -4; 64 bytes of two bits;
// 12 bytes of 16 scales (four low bits, then two high ones); d: x = d (scale - 32) q.
void decode_q3_k(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<256, 110>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 108);
    for (int part = 0; part < 16; ++part) {
      const int low = (byte_at(b, 96 + part % 8) >> (part < 8 ? 0 : 4)) & 15;
      const int high = (byte_at(b, 104 + part % 4) >> (2 * (part / 4))) & 3;
      const float scale = d * static_cast<float>((low | high << 4) - 32);
      for (int i = 16 * part; i < 16 * part + 16; ++i) {
        const bool is_set = ((byte_at(b, i % 32) >> (i / 32)) & 1) != 0;
        x[i] = scale * static_cast<float>(pair_of_bits(b + 32, i) - (is_set ? 0 : 4));
      }
    }
  });
}

// d, m, 12 bytes of scales, 32 * kFifth bytes of fifth bits, 128 bytes of four bits, the low halves
// of 32 before the high ones: x = (d scale) q - m minimum.
template <int kFifth>
void decode_with_minima(const std::byte* from, std::int64_t blocks, float* to) {
  constexpr int kHigh = 16, kLow = kHigh + 32 * kFifth;
  each_block<256, kLow + 128>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0), m = half_at(b, 2);
    const Scales scales = scales_at(b + 4);
    for (int part = 0; part < 8; ++part) {
      const auto which = static_cast<std::size_t>(part);
      const float scale = d * static_cast<float>(scales.scale[which]);
      const float minimum = m * static_cast<float>(scales.minimum[which]);
      for (int i = 0; i < 32; ++i) {
        int q = (byte_at(b, kLow + 32 * (part / 2) + i) >> (part % 2 == 0 ? 0 : 4)) & 15;
        if constexpr (kFifth != 0) q |= ((byte_at(b, kHigh + i) >> part) & 1) << 4;
        x[32 * part + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  });
}

void decode_q4_k(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  decode_with_minima<0>(from, blocks, to);
}

void decode_q5_k(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  decode_with_minima<1>(from, blocks, to);
}

// 128 bytes of four bits, the low halves of 64 before the high ones; 64 bytes of two bits; 16
// signed scales; d: x = (d scale) (q - 32).
void decode_q6_k(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<256, 210>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 208);
    for (int part = 0; part < 16; ++part) {
      const float scale = d * static_cast<float>(static_cast<std::int8_t>(byte_at(b, 192 + part)));
      for (int i = 16 * part; i < 16 * part + 16; ++i) {
        const int low = (byte_at(b, 64 * (i / 128) + i % 64) >> (i / 64 % 2 == 0 ? 0 : 4)) & 15;
        x[i] = scale * static_cast<float>((low | pair_of_bits(b + 128, i) << 4) - 32);
      }
    }
  });
}

// d, 16 bytes that name one of sixteen levels: x = d level.
void decode_iq4_nl(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<32, 18>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0);
    for (int i = 0; i < 32; ++i) x[i] = d * kIq4[static_cast<std::size_t>(nibble(b + 2, i))];
  });
}

// d, eight times two high bits of a scale, eight times its four low bits, 128 bytes of levels:
// x = d (scale - 32) level.
void decode_iq4_xs(const std::byte* from, std::int64_t blocks, float* to) noexcept {
  each_block<256, 136>(from, blocks, to, [](const std::byte* b, float* x) {
    const float d = half_at(b, 0);
    const int high_bits = bits16_at(b, 2);
    for (int part = 0; part < 8; ++part) {
      const int low = (byte_at(b, 4 + part / 2) >> (part % 2 == 0 ? 0 : 4)) & 15;
      const int high = (high_bits >> (2 * part)) & 3;
      const float scale = d * static_cast<float>((low | high << 4) - 32);
      for (int i = 0; i < 32; ++i) {
        const auto level = static_cast<std::size_t>(nibble(b + 8 + std::ptrdiff_t{16} * part, i));
        x[32 * part + i] = scale * kIq4[level];
      }
    }
  });
}

}  // namespace memlayers::io::gguf

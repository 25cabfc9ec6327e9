// SPDX-License-Identifier: Apache-2.0
// Blocks by hand; each type against PyPI's gguf: tests/python/test_gguf.py.
#include "io/gguf/decode.h"
#include "kernels/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "io/gguf/types.h"
#include "support/gguf_bytes.h"

namespace memlayers::io::gguf {
namespace {

using memlayers::testing::little_endian;

std::vector<float> decoded(std::string_view type, const std::string& bytes) {
  const TensorType& found = *find_type(type);
  const std::int64_t blocks = static_cast<std::int64_t>(bytes.size()) / found.block_bytes;
  std::vector<float> numbers(static_cast<std::size_t>(blocks * found.block_numbers));
  found.decode(std::as_bytes(std::span(bytes)).data(), blocks, numbers.data());
  return numbers;
}

const std::string kHalf = little_endian(std::uint16_t{0x3800});      // 0.5
const std::string kMinusTwo = little_endian(std::uint16_t{0xC000});  // -2

TEST(GgufTypes, AreKnownByNumberAndName) {
  EXPECT_EQ(find_type(12)->name, "Q4_K");
  EXPECT_EQ(find_type("Q8_0")->id, 8U);
  EXPECT_EQ(find_type(4), nullptr);  // taken out of the format
  EXPECT_EQ(find_type("Q4_2"), nullptr);
  EXPECT_EQ(find_type("IQ2_XXS")->decode, nullptr);
}

TEST(GgufDecode, HalfPrecisionIsExact) {
  EXPECT_EQ(kernels::half_to_float(0x0001), 0x1p-24F);
  EXPECT_EQ(kernels::half_to_float(0x83FF), -0x1.FF8p-15F);
  EXPECT_EQ(kernels::half_to_float(0x0400), 0x1p-14F);
  EXPECT_EQ(kernels::half_to_float(0x3555), 0.333251953125F);
  EXPECT_EQ(kernels::half_to_float(0x7BFF), 65504.0F);
  EXPECT_EQ(kernels::half_to_float(0xFC00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(kernels::half_to_float(0x7E01)));
  EXPECT_TRUE(std::signbit(kernels::half_to_float(0x8000)));
  EXPECT_EQ(decoded("BF16", little_endian(std::uint16_t{0x3FC0})), std::vector<float>{1.5F});
  EXPECT_EQ(decoded("F16", kHalf + kMinusTwo), (std::vector<float>{0.5F, -2}));
}

TEST(GgufDecode, FourBitsStandInLowHalvesThenInHighOnes) {
  std::string nibbles(16, '\0');
  for (int i = 0; i < 16; ++i)
    nibbles[static_cast<std::size_t>(i)] = static_cast<char>(i | (15 - i) << 4);
  const std::vector<float> q4_0 = decoded("Q4_0", kHalf + nibbles);
  const std::vector<float> q4_1 = decoded("Q4_1", kHalf + kMinusTwo + nibbles);
  const std::vector<float> iq4 = decoded("IQ4_NL", kHalf + nibbles);
  for (std::size_t i = 0; i < 16; ++i) {
    const auto q = static_cast<float>(i);
    EXPECT_EQ(q4_0[i], 0.5F * (q - 8));
    EXPECT_EQ(q4_0[31 - i], 0.5F * (q - 8));
    EXPECT_EQ(q4_1[i], 0.5F * q - 2);
    EXPECT_EQ(iq4[i], iq4[31 - i]);
  }
  EXPECT_EQ(iq4[0], -63.5F);
  EXPECT_EQ(iq4[15], 56.5F);
}

TEST(GgufDecode, SignedBytesAndFifthBits) {
  std::string bytes = kHalf + std::string(32, '\x80');
  bytes[3] = '\x7F';
  const std::vector<float> q8_0 = decoded("Q8_0", bytes);
  EXPECT_EQ(q8_0[0], -64);
  EXPECT_EQ(q8_0[1], 63.5F);
  const std::string high = little_endian(std::uint32_t{1} << 31 | 1u);
  const std::vector<float> q5_0 = decoded("Q5_0", kHalf + high + std::string(16, '\0'));
  EXPECT_EQ(q5_0[0], 0);
  EXPECT_EQ(q5_0[1], -8);
  EXPECT_EQ(q5_0[31], 0);
}

}  // namespace
}  // namespace memlayers::io::gguf

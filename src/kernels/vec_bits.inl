// SPDX-License-Identifier: Apache-2.0
// Scalar helpers that every instruction set's file includes into its own unnamed namespace.

float as_float(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
std::uint32_t as_bits(float x) { return __builtin_bit_cast(std::uint32_t, x); }

constexpr std::uint32_t kExponent = 0x7f800000U;
constexpr std::uint32_t kQuiet = 0x00400000U;  // keeps a NaN a NaN when its lower half is cut off

// SPDX-License-Identifier: Apache-2.0
// Four floats at a time in the compiler's own vectors: for any processor.
#include <cmath>
#include <cstring>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kWidth = 4;
using Vec = float __attribute__((vector_size(16)));
using Bits = std::uint32_t __attribute__((vector_size(16)));
using Halves = std::uint16_t __attribute__((vector_size(8)));
using Words = std::uint64_t __attribute__((vector_size(16)));
using Doubles = double __attribute__((vector_size(16)));

#include "vec_bits.inl"

std::uint16_t nearest_bfloat16(std::uint32_t bits) {  // ties to even
  if ((bits & ~0x80000000U) > kExponent) return static_cast<std::uint16_t>((bits | kQuiet) >> 16);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

std::uint16_t stochastic_bfloat16(std::uint32_t bits, std::uint32_t hash) {
  if ((bits & kExponent) == kExponent) return nearest_bfloat16(bits);
  return static_cast<std::uint16_t>((bits + (hash & 0xffffU)) >> 16);
}

Vec zero() { return Vec{}; }
Vec broadcast(float x) { return Vec{x, x, x, x}; }
Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
Vec load(const float* p, std::int64_t n) {
  if (n == kWidth) return load(p);
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
Vec load(const BFloat16* p) {
  Halves halves;
  std::memcpy(&halves, p, sizeof halves);
  return __builtin_bit_cast(Vec, __builtin_convertvector(halves, Bits) << 16);
}
Vec load(const BFloat16* p, std::int64_t n) {
  if (n == kWidth) return load(p);
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = as_float(static_cast<std::uint32_t>(p[i].bits) << 16);
  return v;
}
void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
void store(float* p, Vec v, std::int64_t n) {
  if (n == kWidth) return store(p, v);
  for (std::int64_t i = 0; i < n; ++i) p[i] = v[i];
}
void store_nearest(BFloat16* p, Vec v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) p[i].bits = nearest_bfloat16(as_bits(v[i]));
}
void store_stochastic(BFloat16* p, Vec v, std::int64_t n, std::uint32_t key) {
  for (std::int64_t i = 0; i < n; ++i) {
    p[i].bits = stochastic_bfloat16(as_bits(v[i]), hash32(key + static_cast<std::uint32_t>(i)));
  }
}
Vec add(Vec a, Vec b) { return a + b; }
Vec sub(Vec a, Vec b) { return a - b; }
Vec mul(Vec a, Vec b) { return a * b; }
Vec div(Vec a, Vec b) { return a / b; }
Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
Vec sqrt(Vec a) { return Vec{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])}; }
Vec max(Vec a, Vec b) { return a > b ? a : b; }
float sum(Vec a) { return (a[0] + a[1]) + (a[2] + a[3]); }
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  std::uint32_t lanes = 0;
  for (std::uint32_t i = 0; i < kWidth; ++i) lanes |= (a[i] < bound ? 0U : 1U) << i;
  return lanes;
}

Words product(Words a, Words b) {  // of the lower halves
  return (a & 0xffffffffU) * (b & 0xffffffffU);
}
Doubles sqrt(Doubles a) { return Doubles{std::sqrt(a[0]), std::sqrt(a[1])}; }

#include "select.inl"

#include "gather.inl"
#include "lookup.inl"
#include "normal.inl"
#include "update.inl"

#include "table.inl"

}  // namespace

extern const Kernels portable;
constinit const Kernels portable = make_table("portable");

}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
// Compiled with AVX2 and FMA. Everything is local to this file, so no other code can be linked to
// it by accident.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kWidth = 8;
using Vec = __m256;
using Words = std::uint64_t __attribute__((vector_size(32)));
using Doubles = double __attribute__((vector_size(32)));

#include "vec_bits.inl"

__m256i lanes_below(std::int64_t n) {  // all bits set in the first n lanes
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

Vec zero() { return _mm256_setzero_ps(); }
Vec broadcast(float x) { return _mm256_set1_ps(x); }
Vec load(const float* p) { return _mm256_loadu_ps(p); }
Vec load(const float* p, std::int64_t n) {
  return n == kWidth ? load(p) : _mm256_maskload_ps(p, lanes_below(n));
}
Vec load(const BFloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
Vec load(const BFloat16* p, std::int64_t n) {
  if (n == kWidth) return load(p);
  BFloat16 buffer[kWidth] = {};
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = p[i];
  return load(buffer);
}
void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
void store(float* p, Vec v, std::int64_t n) {
  if (n == kWidth) {
    store(p, v);
  } else {
    _mm256_maskstore_ps(p, lanes_below(n), v);
  }
}
void store_upper(BFloat16* p, __m256i bits, std::int64_t n) {  // the upper half of each lane
  const __m256i upper = _mm256_srli_epi32(bits, 16);
  const __m128i packed =
      _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
  if (n == kWidth) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
    return;
  }
  BFloat16 buffer[kWidth];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(buffer), packed);
  for (std::int64_t i = 0; i < n; ++i) p[i] = buffer[i];
}
__m256i set1(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
__m256i rounded_to_nearest(__m256i bits) {
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), set1(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(set1(0x7fffU), odd));
  const __m256i is_nan =
      _mm256_cmpgt_epi32(_mm256_and_si256(bits, set1(0x7fffffffU)), set1(kExponent));
  return _mm256_blendv_epi8(rounded, _mm256_or_si256(bits, set1(kQuiet)), is_nan);
}
void store_nearest(BFloat16* p, Vec v, std::int64_t n) {
  store_upper(p, rounded_to_nearest(_mm256_castps_si256(v)), n);
}
__m256i hash(__m256i x) {
  x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
  x = _mm256_mullo_epi32(x, set1(0x85ebca6bU));
  x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 13));
  x = _mm256_mullo_epi32(x, set1(0xc2b2ae35U));
  return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
}
void store_stochastic(BFloat16* p, Vec v, std::int64_t n, std::uint32_t key) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i noise = _mm256_and_si256(
      hash(_mm256_add_epi32(set1(key), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))), set1(0xffffU));
  const __m256i is_special =
      _mm256_cmpeq_epi32(_mm256_and_si256(bits, set1(kExponent)), set1(kExponent));
  store_upper(
      p, _mm256_blendv_epi8(_mm256_add_epi32(bits, noise), rounded_to_nearest(bits), is_special),
      n);
}
Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  return static_cast<std::uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(a, broadcast(bound), _CMP_NLT_UQ)));
}

Words product(Words a, Words b) {  // of the lower halves
  return __builtin_bit_cast(
      Words, _mm256_mul_epu32(__builtin_bit_cast(__m256i, a), __builtin_bit_cast(__m256i, b)));
}
Doubles sqrt(Doubles a) { return _mm256_sqrt_pd(a); }

#include "select.inl"

#include "gather.inl"
#include "lookup.inl"
#include "normal.inl"
#include "update.inl"

#include "table.inl"

}  // namespace

extern const Kernels avx2;
constinit const Kernels avx2 = make_table("avx2");

}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
// Compiled with AVX-512 F, BW, VL and DQ. Everything is local to this file, so no other code can be
// linked to it by accident.
#include <immintrin.h>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kWidth = 16;
using Vec = __m512;
using Words = std::uint64_t __attribute__((vector_size(64)));
using Doubles = double __attribute__((vector_size(64)));

#include "vec_bits.inl"

__mmask16 lanes_below(std::int64_t n) { return static_cast<__mmask16>((1U << n) - 1U); }

Vec zero() { return _mm512_setzero_ps(); }
Vec broadcast(float x) { return _mm512_set1_ps(x); }
Vec load(const float* p) { return _mm512_loadu_ps(p); }
Vec load(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
Vec widen(__m256i half) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
Vec load(const BFloat16* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
Vec load(const BFloat16* p, std::int64_t n) {
  return widen(_mm256_maskz_loadu_epi16(lanes_below(n), p));
}
void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
void store(float* p, Vec v, std::int64_t n) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
void store_upper(BFloat16* p, __m512i bits, std::int64_t n) {  // the upper half of each lane
  _mm512_mask_cvtepi32_storeu_epi16(p, lanes_below(n), _mm512_srli_epi32(bits, 16));
}
__m512i set1(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
__m512i rounded_to_nearest(__m512i bits) {
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), set1(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(set1(0x7fffU), odd));
  const __mmask16 is_nan =
      _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, set1(0x7fffffffU)), set1(kExponent));
  return _mm512_mask_or_epi32(rounded, is_nan, bits, set1(kQuiet));
}
void store_nearest(BFloat16* p, Vec v, std::int64_t n) {
  store_upper(p, rounded_to_nearest(_mm512_castps_si512(v)), n);
}
__m512i hash(__m512i x) {
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, set1(0x85ebca6bU));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 13));
  x = _mm512_mullo_epi32(x, set1(0xc2b2ae35U));
  return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}
void store_stochastic(BFloat16* p, Vec v, std::int64_t n, std::uint32_t key) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i columns = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i noise = _mm512_and_si512(hash(_mm512_add_epi32(set1(key), columns)), set1(0xffffU));
  const __mmask16 is_special =
      _mm512_cmpeq_epi32_mask(_mm512_and_si512(bits, set1(kExponent)), set1(kExponent));
  store_upper(
      p, _mm512_mask_mov_epi32(_mm512_add_epi32(bits, noise), is_special, rounded_to_nearest(bits)),
      n);
}
Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
float sum(Vec a) { return _mm512_reduce_add_ps(a); }
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  return _mm512_cmp_ps_mask(a, broadcast(bound), _CMP_NLT_UQ);
}

Words product(Words a, Words b) {  // of the lower halves
  return __builtin_bit_cast(
      Words, _mm512_mul_epu32(__builtin_bit_cast(__m512i, a), __builtin_bit_cast(__m512i, b)));
}
Doubles sqrt(Doubles a) { return _mm512_sqrt_pd(a); }

#include "select.inl"

#include "gather.inl"
#include "lookup.inl"
#include "normal.inl"
#include "update.inl"

#include "table.inl"

}  // namespace

extern const Kernels avx512;
constinit const Kernels avx512 = make_table("avx512");

}  // namespace memlayers::kernels

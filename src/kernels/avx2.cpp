// SPDX-License-Identifier: Apache-2.0
// Compiled with AVX2 and FMA. Everything is local to this file, so no other code can be linked to
// it by accident.
#include <immintrin.h>

#include <cstring>

#include "kernels/kernels.h"

namespace memlayers::kernels {
namespace {

constexpr std::int64_t kWidth = 8;
using Vec = __m256;
// Lanes of 32 bits. Sums want a type that says so: where it is __m256i, whose lanes are of 64 bits,
// g++ 12 copies a sum from register to register at every step of a loop.
using Ints = std::int32_t __attribute__((vector_size(32)));
using Bits = std::uint32_t __attribute__((vector_size(32)));
using Words = std::uint64_t __attribute__((vector_size(32)));
using Doubles = double __attribute__((vector_size(32)));

#include "vec_bits.inl"

Ints as_ints(__m256i v) { return __builtin_bit_cast(Ints, v); }
Bits as_bits(__m256i v) { return __builtin_bit_cast(Bits, v); }
template <class Lanes>
__m256i as_vector(Lanes v) {
  return __builtin_bit_cast(__m256i, v);
}

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
Vec load(const Int8* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
Vec load(const Int8* p, std::int64_t n) {
  if (n == kWidth) return load(p);
  Int8 buffer[kWidth] = {};
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
// The upper halves of bits + noise; infinities and NaN, which arithmetic leaves quiet, keep their
// bits.
__m256i upper_with_noise(Vec v, __m128i noise) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i is_special =
      _mm256_cmpeq_epi32(_mm256_and_si256(bits, set1(kExponent)), set1(kExponent));
  const __m256i added = _mm256_andnot_si256(is_special, _mm256_cvtepu16_epi32(noise));
  return _mm256_srli_epi32(_mm256_add_epi32(bits, added), 16);
}
// Up to 2 kWidth columns: the halves of eight hashes, in order.
void store_stochastic(BFloat16* p, const float* x, std::int64_t n, std::uint32_t key) {
  const std::int64_t rest = n - kWidth;
  const __m256i noise =
      hash(_mm256_add_epi32(set1(key), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
  const __m256i first =
      upper_with_noise(load(x, rest < 0 ? n : kWidth), _mm256_castsi256_si128(noise));
  const __m256i second = upper_with_noise(rest <= 0 ? zero() : load(x + kWidth, rest),
                                          _mm256_extracti128_si256(noise, 1));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xd8);
  if (rest == kWidth) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
    return;
  }
  BFloat16 buffer[2 * kWidth];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(buffer), packed);
  for (std::int64_t i = 0; i < n; ++i) p[i] = buffer[i];
}
Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
Vec sqrt(Vec a) { return _mm256_sqrt_ps(a); }
Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }  // b where one is NaN
// a * 2^n, where t = n + 1.5 * 2^23: n stands in the low bits of t.
Vec times_power(Vec a, Vec t) {
  return _mm256_castsi256_ps(
      _mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
std::int32_t sum_words(__m256i a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
float greatest(Vec a) {  // any lane where one is NaN
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
// out[r] = sum of the lanes of a[r]: halves that stand side by side are added, three times over, so
// that eight sums cost little more than two.
void sums(const Vec (&a)[8], float* out) {
  const auto halves = [](Vec x, Vec y) {  // x in the lower half, y in the upper
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  };
  const auto pairs = [](Vec x, Vec y) {
    return _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd));
  };
  const Vec front = pairs(halves(a[0], a[4]), halves(a[1], a[5]));
  const Vec back = pairs(halves(a[2], a[6]), halves(a[3], a[7]));
  store(out, pairs(front, back));
}
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  return static_cast<std::uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(a, broadcast(bound), _CMP_NLT_UQ)));
}

// The sum of products of 8-bit numbers that screen.inl takes: 16 columns at a time.
struct Screen {
  static constexpr std::int64_t kColumns = 16;
  using Query = __m256i;
  static __m256i widen(const void* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static Query query(const std::int8_t* p) { return widen(p); }
  void add(const Query& query, const Int8* row, std::int64_t /*n*/) {
    sum += as_ints(_mm256_madd_epi16(query, widen(row)));
  }
  std::int32_t total() const { return sum_words(as_vector(sum)); }
  Ints sum{};
};

// Whole numbers: those of rank.inl, in the order of the scores they stand for.
Ints ordered(Vec scores) {
  const __m256i bits = _mm256_castps_si256(_mm256_add_ps(scores, zero()));  // no negative zero
  const __m256i key =
      _mm256_xor_si256(bits, _mm256_and_si256(_mm256_srai_epi32(bits, 31), set1(0x7fffffffU)));
  const __m256i is_nan =
      _mm256_cmpgt_epi32(_mm256_and_si256(bits, set1(0x7fffffffU)), set1(kExponent));
  return as_ints(_mm256_blendv_epi8(key, set1(0x7fffffffU), is_nan));
}
Ints load_ints(const std::int32_t* p) {
  return as_ints(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
void store_ints(std::int32_t* p, Ints v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), as_vector(v));
}
Ints broadcast_int(std::int32_t x) { return as_ints(_mm256_set1_epi32(x)); }
Ints count_if_greater(Ints count, Ints a, Ints b) {  // count + (a > b ? 1 : 0)
  return count - (a > b);
}
// How many numbers reach a bound.
struct Reached {
  Ints counts{};
  void add(Vec a, Vec bound) {
    counts -= as_ints(_mm256_castps_si256(_mm256_cmp_ps(a, bound, _CMP_GE_OQ)));
  }
  std::int64_t total() const { return sum_words(as_vector(counts)); }
};

// The places of the set bits of each byte, first to last.
struct SetBits {
  alignas(8) std::uint8_t of[256][8];
};
constexpr SetBits set_bits() {
  SetBits table{};
  for (int byte = 0; byte < 256; ++byte) {
    int n = 0;
    for (std::uint8_t bit = 0; bit < 8; ++bit) {
      if ((byte >> bit & 1) != 0) table.of[byte][n++] = bit;
    }
  }
  return table;
}
constexpr SetBits kSetBits = set_bits();

// Appends the chosen lanes and their index, first + lane; writes whole vectors.
std::int64_t append(Vec v, std::uint32_t lanes, std::int32_t first, float* values,
                    std::int32_t* index) {
  const __m256i places =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kSetBits.of[lanes])));
  store(values, _mm256_permutevar8x32_ps(v, places));
  store_ints(index, as_ints(places) + first);
  return __builtin_popcount(lanes);
}

// Eight floats, and eight words.
using Oct = Vec;
using OctBits = Bits;
Oct oct_zero() { return zero(); }
Oct oct_broadcast(float x) { return broadcast(x); }
Oct oct_load(const float* p) { return load(p); }
void oct_store(float* p, Oct v) { store(p, v); }
Oct oct_mul(Oct a, Oct b) { return mul(a, b); }
Oct oct_fma(Oct a, Oct b, Oct c) { return fma(a, b, c); }
float oct_sum(Oct a) { return sum(a); }
Oct oct_load_bfloat16(const Int4* p) { return load(reinterpret_cast<const BFloat16*>(p)); }
OctBits oct_load_bits(const Int4* p) {
  return as_bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
OctBits oct_and(OctBits a, std::uint32_t mask) { return a & mask; }
OctBits oct_shift_right(OctBits a, int bits) { return a >> static_cast<std::uint32_t>(bits); }
OctBits oct_shift_left(OctBits a, int bits) { return a << static_cast<std::uint32_t>(bits); }
Oct oct_from_bits(OctBits a) { return _mm256_cvtepi32_ps(as_vector(a)); }
OctBits oct_bits(Oct a) { return __builtin_bit_cast(OctBits, a); }
Oct oct_float(OctBits a) { return __builtin_bit_cast(Oct, a); }
OctBits oct_max_bits(OctBits a, OctBits b) {
  return as_bits(_mm256_max_epi32(as_vector(a), as_vector(b)));
}
Oct oct_div(Oct a, Oct b) { return div(a, b); }
OctBits oct_round(Oct a) { return as_bits(_mm256_cvtps_epi32(a)); }  // ties to even
OctBits oct_broadcast_bits(std::int32_t x) { return as_bits(_mm256_set1_epi32(x)); }
void oct_store_bits(std::int32_t* p, OctBits v) { store_ints(p, as_ints(as_vector(v))); }
// The lower halves of both, and the upper: a's in the lower half of a word, b's in the upper.
OctBits oct_low_halves(OctBits a, OctBits b) {
  return as_bits(_mm256_blend_epi16(as_vector(a), as_vector(b << 16), 0xaa));
}
OctBits oct_high_halves(OctBits a, OctBits b) {
  return as_bits(_mm256_blend_epi16(as_vector(a >> 16), as_vector(b), 0xaa));
}
// sum + the products of both pairs of 16 bits in each word
OctBits oct_add_pairs(OctBits sum, OctBits a, OctBits b) {
  return sum + as_bits(_mm256_madd_epi16(as_vector(a), as_vector(b)));
}

// Of rows of Int8 (pairs.inl): halves of words of both, side by side in each lane of 128 bits.
Bits load_bytes(const Int8* p) {
  return as_bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
Bits low_pairs(Bits a, Bits b) {
  return as_bits(_mm256_unpacklo_epi16(as_vector(a), as_vector(b)));
}
Bits high_pairs(Bits a, Bits b) {
  return as_bits(_mm256_unpackhi_epi16(as_vector(a), as_vector(b)));
}
Bits upper_bytes(Bits pairs) { return as_bits(_mm256_srai_epi16(as_vector(pairs), 8)); }
Bits add_pairs(Bits sum, Bits a, Bits b) { return oct_add_pairs(sum, a, b); }
void in_order(const Bits (&even)[2], const Bits (&odd)[2], Vec (&out)[4]) {
  for (int half = 0; half < 2; ++half) {
    const __m256i e = as_vector(even[half]), o = as_vector(odd[half]);
    const __m256i low = _mm256_unpacklo_epi32(e, o), high = _mm256_unpackhi_epi32(e, o);
    out[half] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(low, high, 0x20));
    out[half + 2] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(low, high, 0x31));
  }
}

Words product(Words a, Words b) {  // of the lower halves
  return __builtin_bit_cast(
      Words, _mm256_mul_epu32(__builtin_bit_cast(__m256i, a), __builtin_bit_cast(__m256i, b)));
}
Doubles sqrt(Doubles a) { return _mm256_sqrt_pd(a); }

// What packed.inl needs.
Vec load_half(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
Vec as_floats(Ints a) { return _mm256_cvtepi32_ps(as_vector(a)); }
// sum + the products of the four unsigned bytes of each lane with the four signed ones at p.
Ints add_quads(Ints sum, Bits numbers, const std::int8_t* p) {
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  const __m256i vector = _mm256_set1_epi32(four), low = _mm256_set1_epi16(0xff);
  const __m256i all = as_vector(numbers);
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(all, low),
                                         _mm256_srai_epi16(_mm256_slli_epi16(vector, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(all, 8), _mm256_srai_epi16(vector, 8));
  return as_ints(_mm256_add_epi32(as_vector(sum), _mm256_add_epi32(even, odd)));
}
// The nearest whole numbers, and their sum.
std::uint32_t store_nearest_bytes(std::int8_t* p, Vec v) {
  const Ints whole = as_ints(_mm256_cvtps_epi32(v));
  std::uint32_t total = 0;
  for (int i = 0; i < kWidth; ++i) {
    p[i] = static_cast<std::int8_t>(whole[i]);
    total += static_cast<std::uint32_t>(whole[i]);
  }
  return total;
}

#include "select.inl"

#include "rank.inl"

#include "gather.inl"

#include "pairs.inl"

#include "int4.inl"
#include "lookup.inl"

#include "dense.inl"
#include "normal.inl"
#include "packed.inl"
#include "screen.inl"
#include "update.inl"

constexpr const BlockScreen* block_screen() { return nullptr; }

#include "table.inl"

}  // namespace

extern const Kernels avx2;
constinit const Kernels avx2 = make_table("avx2");

}  // namespace memlayers::kernels

// SPDX-License-Identifier: Apache-2.0
// Vec of AVX-512 F, BW, VL and DQ, and what is written over it. Included by one file for each set
// of flags; everything is local to that file, so no other code can be linked to it by accident.

constexpr std::int64_t kWidth = 16;
using Vec = __m512;
// Lanes of 32 bits. Sums want a type that says so: where it is __m512i, whose lanes are of 64 bits,
// g++ 12 copies a sum from register to register at every step of a loop.
using Ints = std::int32_t __attribute__((vector_size(64)));
using Bits = std::uint32_t __attribute__((vector_size(64)));
using Words = std::uint64_t __attribute__((vector_size(64)));
using Doubles = double __attribute__((vector_size(64)));

#include "vec_bits.inl"

Ints as_ints(__m512i v) { return __builtin_bit_cast(Ints, v); }
Bits as_bits(__m512i v) { return __builtin_bit_cast(Bits, v); }
template <class Lanes>
__m512i as_vector(Lanes v) {
  return __builtin_bit_cast(__m512i, v);
}

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
Vec load(const Int8* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
Vec load(const Int8* p, std::int64_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes_below(n), p)));
}
void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
void store(float* p, Vec v, std::int64_t n) {
  if (n == kWidth) return store(p, v);
  _mm512_mask_storeu_ps(p, lanes_below(n), v);
}
void store_upper(BFloat16* p, __m512i bits, std::int64_t n) {  // the upper half of each lane
  const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
  if (n == kWidth) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  _mm256_mask_storeu_epi16(p, lanes_below(n), half);
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
// Infinities and NaN, which arithmetic leaves quiet, keep their bits.
void store_with_noise(BFloat16* p, Vec v, std::int64_t n, __m256i noise) {
  const __m512i bits = _mm512_castps_si512(v);
  const __mmask16 is_finite = _knot_mask16(_mm512_fpclass_ps_mask(v, 0x99));
  store_upper(p, _mm512_mask_add_epi32(bits, is_finite, bits, _mm512_cvtepu16_epi32(noise)), n);
}
// Up to 2 kWidth columns: the halves of sixteen hashes, in order.
void store_stochastic(BFloat16* p, const float* x, std::int64_t n, std::uint32_t key) {
  const __m512i pairs = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i noise = hash(_mm512_add_epi32(set1(key), pairs));
  const std::int64_t first = n < kWidth ? n : kWidth;
  store_with_noise(p, load(x, first), first, _mm512_castsi512_si256(noise));
  if (n <= kWidth) return;
  store_with_noise(p + kWidth, load(x + kWidth, n - kWidth), n - kWidth,
                   _mm512_extracti64x4_epi64(noise, 1));
}
Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }  // b where one is NaN
// a * 2^n, where t = n + 1.5 * 2^23: n stands in the low bits of t.
Vec times_power(Vec a, Vec t) {
  return _mm512_castsi512_ps(
      _mm512_add_epi32(_mm512_castps_si512(a), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
float sum(Vec a) { return _mm512_reduce_add_ps(a); }
float greatest(Vec a) { return _mm512_reduce_max_ps(a); }  // any lane where one is NaN
// out[r] = sum of the lanes of a[r]: halves that stand side by side are added, four times over, so
// that eight sums cost little more than two.
void sums(const Vec (&a)[8], float* out) {
  const auto halves = [](Vec x, Vec y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  };
  const auto quarters = [](Vec x, Vec y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  const Vec front = quarters(halves(a[0], a[1]), halves(a[2], a[3]));
  const Vec back = quarters(halves(a[4], a[5]), halves(a[6], a[7]));
  // Lane by lane of 128 bits: two halves of row i, two of row 4 + i.
  const Vec both =
      _mm512_add_ps(_mm512_shuffle_ps(front, back, 0x88), _mm512_shuffle_ps(front, back, 0xdd));
  const Vec all = _mm512_add_ps(both, _mm512_permute_ps(both, 0xb1));
  const __m512i order = _mm512_castsi256_si512(_mm256_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14));
  _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all)));
}
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  return _mm512_cmp_ps_mask(a, broadcast(bound), _CMP_NLT_UQ);
}

// The sum of products of 8-bit numbers that screen.inl takes: 64 columns at a time.
struct Screen {
  static constexpr std::int64_t kColumns = 64;
  Ints sum{};
#if defined(__AVX512VNNI__)
  // Rows become unsigned, as the instruction wants them, by adding 128 to each number: 128 times
  // the sum of the query is taken off again.
  struct Query {
    __m512i numbers, minus;
  };
  static __m512i offset() { return _mm512_set1_epi8(static_cast<char>(0x80)); }
  static Query query(const std::int8_t* p) {
    const __m512i numbers = _mm512_loadu_si512(p), none = _mm512_setzero_si512();
    return {numbers, _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, offset(), numbers))};
  }
  void add(const Query& query, const Int8* row, std::int64_t n) {
    const __mmask64 lanes = n < 64 ? (__mmask64{1} << n) - 1 : ~__mmask64{0};
    const __m512i numbers = _mm512_xor_si512(_mm512_maskz_loadu_epi8(lanes, row), offset());
    sum =
        as_ints(_mm512_dpbusd_epi32(as_vector(sum + as_ints(query.minus)), numbers, query.numbers));
  }
#else
  struct Query {
    __m512i low, high;
  };
  static __m512i widen(__m256i bytes) { return _mm512_cvtepi8_epi16(bytes); }
  static Query query(const std::int8_t* p) {
    const auto* half = reinterpret_cast<const __m256i*>(p);
    return {widen(_mm256_loadu_si256(half)), widen(_mm256_loadu_si256(half + 1))};
  }
  void add(const Query& query, const Int8* row, std::int64_t n) {
    const __mmask64 lanes = n < 64 ? (__mmask64{1} << n) - 1 : ~__mmask64{0};
    const __m512i bytes = _mm512_maskz_loadu_epi8(lanes, row);
    sum += as_ints(_mm512_madd_epi16(query.low, widen(_mm512_castsi512_si256(bytes))));
    sum += as_ints(_mm512_madd_epi16(query.high, widen(_mm512_extracti64x4_epi64(bytes, 1))));
  }
#endif
  std::int32_t total() const { return _mm512_reduce_add_epi32(as_vector(sum)); }
};

// Whole numbers: those of rank.inl, in the order of the scores they stand for.
Ints ordered(Vec scores) {
  const __m512i bits = _mm512_castps_si512(_mm512_add_ps(scores, zero()));  // no negative zero
  const __m512i key =
      _mm512_xor_si512(bits, _mm512_and_si512(_mm512_srai_epi32(bits, 31), set1(0x7fffffffU)));
  const __mmask16 is_nan =
      _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, set1(0x7fffffffU)), set1(kExponent));
  return as_ints(_mm512_mask_mov_epi32(key, is_nan, set1(0x7fffffffU)));
}
Ints load_ints(const std::int32_t* p) { return as_ints(_mm512_loadu_si512(p)); }
void store_ints(std::int32_t* p, Ints v) { _mm512_storeu_si512(p, as_vector(v)); }
Ints broadcast_int(std::int32_t x) { return as_ints(_mm512_set1_epi32(x)); }
Ints count_if_greater(Ints count, Ints a, Ints b) {  // count + (a > b ? 1 : 0)
  const __m512i counts = as_vector(count);
  const __mmask16 is_greater = _mm512_cmpgt_epi32_mask(as_vector(a), as_vector(b));
  return as_ints(_mm512_mask_add_epi32(counts, is_greater, counts, set1(1)));
}
// How many numbers reach a bound.
struct Reached {
  std::int64_t count = 0;
  void add(Vec a, Vec bound) {
    count += __builtin_popcount(_mm512_cmp_ps_mask(a, bound, _CMP_GE_OQ));
  }
  std::int64_t total() const { return count; }
};

// Appends the chosen lanes and their index, first + lane; writes whole vectors.
std::int64_t append(Vec v, std::uint32_t lanes, std::int32_t first, float* values,
                    std::int32_t* index) {
  const auto mask = static_cast<__mmask16>(lanes);
  const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  store(values, _mm512_maskz_compress_ps(mask, v));
  store_ints(index, as_ints(_mm512_maskz_compress_epi32(mask, as_vector(as_ints(places) + first))));
  return __builtin_popcount(lanes);
}

// Eight floats, and eight words.
using Oct = __m256;
using OctBits = std::uint32_t __attribute__((vector_size(32)));
OctBits as_oct(__m256i v) { return __builtin_bit_cast(OctBits, v); }
__m256i as_half(OctBits v) { return __builtin_bit_cast(__m256i, v); }
Oct oct_zero() { return _mm256_setzero_ps(); }
Oct oct_broadcast(float x) { return _mm256_set1_ps(x); }
Oct oct_load(const float* p) { return _mm256_loadu_ps(p); }
void oct_store(float* p, Oct v) { _mm256_storeu_ps(p, v); }
Oct oct_mul(Oct a, Oct b) { return _mm256_mul_ps(a, b); }
Oct oct_fma(Oct a, Oct b, Oct c) { return _mm256_fmadd_ps(a, b, c); }
float oct_sum(Oct a) { return sum(_mm512_zextps256_ps512(a)); }
Oct oct_load_bfloat16(const Int4* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
OctBits oct_load_bits(const Int4* p) {
  return as_oct(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
OctBits oct_and(OctBits a, std::uint32_t mask) { return a & mask; }
OctBits oct_shift_right(OctBits a, int bits) { return a >> static_cast<std::uint32_t>(bits); }
OctBits oct_shift_left(OctBits a, int bits) { return a << static_cast<std::uint32_t>(bits); }
Oct oct_from_bits(OctBits a) { return _mm256_cvtepi32_ps(as_half(a)); }
OctBits oct_bits(Oct a) { return __builtin_bit_cast(OctBits, a); }
Oct oct_float(OctBits a) { return __builtin_bit_cast(Oct, a); }
OctBits oct_max_bits(OctBits a, OctBits b) {
  return as_oct(_mm256_max_epi32(as_half(a), as_half(b)));
}
Oct oct_div(Oct a, Oct b) { return _mm256_div_ps(a, b); }
OctBits oct_round(Oct a) { return as_oct(_mm256_cvtps_epi32(a)); }  // ties to even
OctBits oct_broadcast_bits(std::int32_t x) { return as_oct(_mm256_set1_epi32(x)); }
void oct_store_bits(std::int32_t* p, OctBits v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), as_half(v));
}
// The lower halves of both, and the upper: a's in the lower half of a word, b's in the upper.
OctBits oct_low_halves(OctBits a, OctBits b) {
  return as_oct(_mm256_blend_epi16(as_half(a), as_half(b << 16), 0xaa));
}
OctBits oct_high_halves(OctBits a, OctBits b) {
  return as_oct(_mm256_blend_epi16(as_half(a >> 16), as_half(b), 0xaa));
}
// sum + the products of both pairs of 16 bits in each word
OctBits oct_add_pairs(OctBits sum, OctBits a, OctBits b) {
#if defined(__AVX512VNNI__)
  return as_oct(_mm256_dpwssd_epi32(as_half(sum), as_half(a), as_half(b)));
#else
  return sum + as_oct(_mm256_madd_epi16(as_half(a), as_half(b)));
#endif
}
Bits add_pairs(Bits sum, Bits a, Bits b) {
#if defined(__AVX512VNNI__)
  return as_bits(_mm512_dpwssd_epi32(as_vector(sum), as_vector(a), as_vector(b)));
#else
  return sum + as_bits(_mm512_madd_epi16(as_vector(a), as_vector(b)));
#endif
}

// Of rows of Int8 (pairs.inl): halves of words of both, side by side in each lane of 128 bits.
Bits load_bytes(const Int8* p) { return as_bits(_mm512_loadu_si512(p)); }
Bits low_pairs(Bits a, Bits b) {
  return as_bits(_mm512_unpacklo_epi16(as_vector(a), as_vector(b)));
}
Bits high_pairs(Bits a, Bits b) {
  return as_bits(_mm512_unpackhi_epi16(as_vector(a), as_vector(b)));
}
Bits upper_bytes(Bits pairs) { return as_bits(_mm512_srai_epi16(as_vector(pairs), 8)); }
void in_order(const Bits (&even)[2], const Bits (&odd)[2], Vec (&out)[4]) {
  __m512i front[2], back[2];  // of the lanes of 128 bits
  for (int half = 0; half < 2; ++half) {
    const __m512i e = as_vector(even[half]), o = as_vector(odd[half]);
    const __m512i low = _mm512_unpacklo_epi32(e, o), high = _mm512_unpackhi_epi32(e, o);
    front[half] = _mm512_shuffle_i32x4(low, high, 0x44);
    back[half] = _mm512_shuffle_i32x4(low, high, 0xee);
  }
  out[0] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(front[0], front[1], 0x88));
  out[1] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(front[0], front[1], 0xdd));
  out[2] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(back[0], back[1], 0x88));
  out[3] = _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(back[0], back[1], 0xdd));
}

Words product(Words a, Words b) {  // of the lower halves
  return __builtin_bit_cast(
      Words, _mm512_mul_epu32(__builtin_bit_cast(__m512i, a), __builtin_bit_cast(__m512i, b)));
}
Doubles sqrt(Doubles a) { return _mm512_sqrt_pd(a); }

// What packed.inl needs.
Vec load_half(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
Vec as_floats(Ints a) { return _mm512_cvtepi32_ps(as_vector(a)); }
// sum + the products of the four unsigned bytes of each lane with the four signed ones at p.
Ints add_quads(Ints sum, Bits numbers, const std::int8_t* p) {
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  const __m512i vector = _mm512_set1_epi32(four);
#if defined(__AVX512VNNI__)
  return as_ints(_mm512_dpbusd_epi32(as_vector(sum), as_vector(numbers), vector));
#else
  const __m512i low = _mm512_set1_epi16(0xff), all = as_vector(numbers);
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512(all, low),
                                         _mm512_srai_epi16(_mm512_slli_epi16(vector, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(all, 8), _mm512_srai_epi16(vector, 8));
  return as_ints(_mm512_add_epi32(as_vector(sum), _mm512_add_epi32(even, odd)));
#endif
}
// The nearest whole numbers, and their sum.
std::uint32_t store_nearest_bytes(std::int8_t* p, Vec v) {
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  return static_cast<std::uint32_t>(_mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(bytes)));
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

#ifdef __AVX512VNNI__
#include "screen_block.inl"

constexpr const BlockScreen* block_screen() { return &kBlockScreen; }
#else
constexpr const BlockScreen* block_screen() { return nullptr; }
#endif

#include "table.inl"

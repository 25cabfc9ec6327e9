// SPDX-License-Identifier: Apache-2.0
// Four floats at a time in the compiler's own vectors: for any processor.
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <cmath>
#include <cstring>

#include "kernels/float16.h"
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

std::uint16_t stochastic_bfloat16(std::uint32_t bits, std::uint32_t noise) {
  if ((bits & kExponent) == kExponent) return nearest_bfloat16(bits);
  return static_cast<std::uint16_t>((bits + noise) >> 16);
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
Vec load(const Int8* p) {
  return Vec{static_cast<float>(p[0].bits), static_cast<float>(p[1].bits),
             static_cast<float>(p[2].bits), static_cast<float>(p[3].bits)};
}
Vec load(const Int8* p, std::int64_t n) {
  Vec v{};
  for (std::int64_t i = 0; i < n; ++i) v[i] = static_cast<float>(p[i].bits);
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
void store_stochastic(BFloat16* p, const float* x, std::int64_t n, std::uint32_t key) {
  for (std::int64_t i = 0; i < n; i += 2) {
    const std::uint32_t noise = hash32(key + static_cast<std::uint32_t>(i / 2));
    p[i].bits = stochastic_bfloat16(as_bits(x[i]), noise & 0xffffU);
    if (i + 1 < n) p[i + 1].bits = stochastic_bfloat16(as_bits(x[i + 1]), noise >> 16);
  }
}
Vec add(Vec a, Vec b) { return a + b; }
Vec sub(Vec a, Vec b) { return a - b; }
Vec mul(Vec a, Vec b) { return a * b; }
Vec div(Vec a, Vec b) { return a / b; }
Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
Vec sqrt(Vec a) { return Vec{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])}; }
Vec max(Vec a, Vec b) { return a > b ? a : b; }  // b where one is NaN
// a * 2^n, where t = n + 1.5 * 2^23: n stands in the low bits of t.
Vec times_power(Vec a, Vec t) {
  return __builtin_bit_cast(Vec, __builtin_bit_cast(Bits, a) + (__builtin_bit_cast(Bits, t) << 23));
}
float sum(Vec a) { return (a[0] + a[1]) + (a[2] + a[3]); }
float greatest(Vec a) {  // any lane where one is NaN
  const float front = a[0] > a[1] ? a[0] : a[1], back = a[2] > a[3] ? a[2] : a[3];
  return front > back ? front : back;
}
void sums(const Vec (&a)[8], float* out) {  // of the lanes of each
  for (int r = 0; r < 8; ++r) out[r] = sum(a[r]);
}
// A bit a lane that is not below `bound`; NaN is not.
std::uint32_t not_less(Vec a, float bound) {
  std::uint32_t lanes = 0;
  for (std::uint32_t i = 0; i < kWidth; ++i) lanes |= (a[i] < bound ? 0U : 1U) << i;
  return lanes;
}

// The sum of products of 8-bit numbers that screen.inl takes: 16 columns at a time.
struct Screen {
  static constexpr std::int64_t kColumns = 16;
  using Query = const std::int8_t*;
  static Query query(const std::int8_t* p) { return p; }
  void add(Query query, const Int8* row, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) sum += query[i] * row[i].bits;
  }
  std::int32_t total() const { return sum; }
  std::int32_t sum = 0;
};

// Whole numbers: those of rank.inl, in the order of the scores they stand for.
using Ints = std::int32_t __attribute__((vector_size(16)));
Ints ordered(Vec scores) {
  const Ints bits = __builtin_bit_cast(Ints, scores + Vec{});  // no negative zero
  const Ints size = bits & 0x7fffffff;
  const Ints key = bits < 0 ? bits ^ 0x7fffffff : bits;
  return size > static_cast<std::int32_t>(kExponent) ? Ints{} + 0x7fffffff : key;
}
Ints load_ints(const std::int32_t* p) {
  Ints v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
void store_ints(std::int32_t* p, Ints v) { std::memcpy(p, &v, sizeof v); }
Ints broadcast_int(std::int32_t x) { return Ints{} + x; }
Ints count_if_greater(Ints count, Ints a, Ints b) { return count - (a > b); }
// How many numbers reach a bound.
struct Reached {
  Ints counts = {};
  void add(Vec a, Vec bound) { counts -= a >= bound; }
  std::int64_t total() const { return (counts[0] + counts[1]) + (counts[2] + counts[3]); }
};

// Appends the chosen lanes and their index, first + lane.
std::int64_t append(Vec v, std::uint32_t lanes, std::int32_t first, float* values,
                    std::int32_t* index) {
  std::int64_t n = 0;
  for (std::int32_t i = 0; i < kWidth; ++i) {
    if ((lanes >> i & 1U) == 0) continue;
    values[n] = v[i];
    index[n++] = first + i;
  }
  return n;
}

// Eight floats, and eight words.
struct Oct {
  Vec low, high;
};
struct OctBits {
  Bits low, high;
};
Oct oct_zero() { return {zero(), zero()}; }
Oct oct_broadcast(float x) { return {broadcast(x), broadcast(x)}; }
Oct oct_load(const float* p) { return {load(p), load(p + 4)}; }
void oct_store(float* p, Oct v) {
  store(p, v.low);
  store(p + 4, v.high);
}
Oct oct_mul(Oct a, Oct b) { return {a.low * b.low, a.high * b.high}; }
Oct oct_fma(Oct a, Oct b, Oct c) { return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)}; }
float oct_sum(Oct a) { return sum(a.low) + sum(a.high); }
Oct oct_load_bfloat16(const Int4* p) {
  const auto* half = reinterpret_cast<const BFloat16*>(p);
  return {load(half), load(half + 4)};
}
OctBits oct_load_bits(const Int4* p) {
  OctBits bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}
OctBits oct_and(OctBits a, std::uint32_t mask) { return {a.low & mask, a.high & mask}; }
OctBits oct_shift_right(OctBits a, int bits) { return {a.low >> bits, a.high >> bits}; }
OctBits oct_shift_left(OctBits a, int bits) { return {a.low << bits, a.high << bits}; }
Oct oct_from_bits(OctBits a) {
  return {__builtin_convertvector(__builtin_bit_cast(Ints, a.low), Vec),
          __builtin_convertvector(__builtin_bit_cast(Ints, a.high), Vec)};
}
OctBits oct_bits(Oct a) { return __builtin_bit_cast(OctBits, a); }
Oct oct_float(OctBits a) { return __builtin_bit_cast(Oct, a); }
OctBits oct_max_bits(OctBits a, OctBits b) {
  return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high};
}
Oct oct_div(Oct a, Oct b) { return {a.low / b.low, a.high / b.high}; }
// To the nearest whole number, ties to even, of numbers below 2^22: adding 1.5 * 2^23 rounds.
Bits round(Vec v) { return __builtin_bit_cast(Bits, v + 12582912.0F) - 0x4b400000U; }
OctBits oct_round(Oct a) { return {round(a.low), round(a.high)}; }
OctBits oct_broadcast_bits(std::int32_t x) {
  const Bits bits = Bits{} + static_cast<std::uint32_t>(x);
  return {bits, bits};
}
void oct_store_bits(std::int32_t* p, OctBits v) { std::memcpy(p, &v, sizeof v); }
// The lower halves of both, and the upper: a's in the lower half of a word, b's in the upper.
OctBits oct_low_halves(OctBits a, OctBits b) {
  return {(a.low & 0xffffU) | b.low << 16, (a.high & 0xffffU) | b.high << 16};
}
OctBits oct_high_halves(OctBits a, OctBits b) {
  return {a.low >> 16 | (b.low & 0xffff0000U), a.high >> 16 | (b.high & 0xffff0000U)};
}
// sum + the products of both pairs of 16 bits in each word
Bits add_pairs(Bits sum, Bits a, Bits b) {
#if defined(__SSE2__)
  return sum + __builtin_bit_cast(Bits, _mm_madd_epi16(__builtin_bit_cast(__m128i, a),
                                                       __builtin_bit_cast(__m128i, b)));
#else
  const auto low = [](Bits v) { return __builtin_bit_cast(Ints, v << 16) >> 16; };
  const auto high = [](Bits v) { return __builtin_bit_cast(Ints, v) >> 16; };
  return sum + __builtin_bit_cast(Bits, low(a) * low(b)) +
         __builtin_bit_cast(Bits, high(a) * high(b));
#endif
}
OctBits oct_add_pairs(OctBits sum, OctBits a, OctBits b) {
  return {add_pairs(sum.low, a.low, b.low), add_pairs(sum.high, a.high, b.high)};
}

// Of rows of Int8 (pairs.inl): halves of words of both, side by side.
using Shorts = std::int16_t __attribute__((vector_size(16)));
Shorts shorts(Bits v) { return __builtin_bit_cast(Shorts, v); }
Bits load_bytes(const Int8* p) {
  Bits bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return bytes;
}
Bits low_pairs(Bits a, Bits b) {
  return __builtin_bit_cast(
      Bits, __builtin_shufflevector(shorts(a), shorts(b), 0, 8, 1, 9, 2, 10, 3, 11));
}
Bits high_pairs(Bits a, Bits b) {
  return __builtin_bit_cast(
      Bits, __builtin_shufflevector(shorts(a), shorts(b), 4, 12, 5, 13, 6, 14, 7, 15));
}
Bits upper_bytes(Bits pairs) { return __builtin_bit_cast(Bits, shorts(pairs) >> 8); }
void in_order(const Bits (&even)[2], const Bits (&odd)[2], Vec (&out)[4]) {
  for (std::int64_t half = 0; half < 2; ++half) {
    const auto e = __builtin_bit_cast(Ints, even[half]), o = __builtin_bit_cast(Ints, odd[half]);
    out[2 * half] = __builtin_convertvector(__builtin_shufflevector(e, o, 0, 4, 1, 5), Vec);
    out[2 * half + 1] = __builtin_convertvector(__builtin_shufflevector(e, o, 2, 6, 3, 7), Vec);
  }
}

Words product(Words a, Words b) {  // of the lower halves
  return (a & 0xffffffffU) * (b & 0xffffffffU);
}
Doubles sqrt(Doubles a) { return Doubles{std::sqrt(a[0]), std::sqrt(a[1])}; }

// What packed.inl needs.
Vec load_half(const std::uint16_t* p) {
  return Vec{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])};
}
Vec as_floats(Ints a) { return __builtin_convertvector(a, Vec); }
// sum + the products of the four unsigned bytes of each lane with the four signed ones at p.
Ints add_quads(Ints sum, Bits numbers, const std::int8_t* p) {
  for (int i = 0; i < 4; ++i) sum += __builtin_bit_cast(Ints, numbers >> 8 * i & 0xffU) * p[i];
  return sum;
}
// The nearest whole numbers, and their sum.
std::uint32_t store_nearest_bytes(std::int8_t* p, Vec v) {
  constexpr float kShift = 0x1.8p23F;
  std::uint32_t total = 0;
  for (int i = 0; i < kWidth; ++i) {
    const float whole = (v[i] + kShift) - kShift;
    p[i] = whole >= -127 && whole <= 127 ? static_cast<std::int8_t>(whole) : std::int8_t{0};
    total += static_cast<std::uint32_t>(std::int32_t{p[i]});
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

extern const Kernels portable;
constinit const Kernels portable = make_table("portable");

}  // namespace memlayers::kernels

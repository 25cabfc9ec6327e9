// SPDX-License-Identifier: Apache-2.0
// Reads of Int4 rows (quantized.h has the layout); included once per instruction set, after Oct and
// pairs.inl. An Oct is eight floats. Eight words of a block, masked to their k-th nibble, are u *
// 16^k of eight neighbouring columns: no shuffle. The power of two is taken out of the eight rows'
// sum. x = s (u - 8), so the sum is that of s u minus 8 sum s.

constexpr std::int64_t kSuperblock = 256;  // columns that eight scales serve

constexpr float power_of_16(int exponent) {
  float power = 1;
  for (; exponent < 0; ++exponent) power /= 16;
  return power;
}

// Nibble k of the words, times 16^k; k = 7 would reach the sign and is shifted down instead.
template <int k>
Oct nibble(OctBits words) {
  if constexpr (k < 7) {
    return oct_from_bits(oct_and(words, 15U << (4 * k)));
  } else {
    return oct_from_bits(oct_shift_right(words, 28));
  }
}
template <int k>
constexpr float kNibbleUnit = k < 7 ? power_of_16(-k) : 1.0F;

// f.operator()<k>() for k = kFirst..kFirst + 3: the nibbles of one group of columns.
template <int kFirst, class F>
[[gnu::always_inline]] inline void for_group(const F& f) {
  f.template operator()<kFirst>();
  f.template operator()<kFirst + 1>();
  f.template operator()<kFirst + 2>();
  f.template operator()<kFirst + 3>();
}

// The factors of R rows in the eight groups of a superblock, as pairs.inl has them.
template <int R>
struct GroupFactors {
  static constexpr std::int64_t kPairs = (R + 1) / 2;
  alignas(32) std::int32_t pairs[kPairs][kOct];
  alignas(32) float units[kOct];
  alignas(32) std::int32_t starts[kOct];  // -8 times the sum of the factors

  GroupFactors(const Rows<R, Int4>& rows, std::int64_t scales, const float* weights) {
    Oct factors[R];
    Greatest greatest;
    for (int r = 0; r < R; ++r) {
      factors[r] = oct_mul(oct_broadcast(weights[r]), oct_load_bfloat16(rows.row[r] + scales));
      greatest.add(factors[r]);
    }
    const Whole whole(greatest);
    oct_store(units, whole.unit);
    OctBits start = oct_broadcast_bits(0);
    for (std::int64_t p = 0; p < kPairs; ++p) {
      const OctBits first = whole.of(factors[2 * p]);
      const OctBits second =
          R == 1 ? oct_broadcast_bits(0) : whole.of(factors[R == 1 ? 0 : 2 * p + 1]);
      const OctBits pair = oct_low_halves(first, second);
      oct_store_bits(pairs[p], pair);
      start = oct_add_pairs(start, pair,
                            oct_broadcast_bits(static_cast<std::int32_t>(pair_of(-8, -8))));
    }
    oct_store_bits(starts, start);
  }
};

// Of two nibbles side by side, as the words are masked to them, the second counts sixteen times.
constexpr std::uint32_t kNibbles = 0x000f000fU, kUpperNibbles = 0x00f000f0U;
constexpr int kUpper = 4;

// The weighted sum of R rows in the 32 columns of half a block, its first or its second, to `to`.
template <int R, bool kSecond, bool kAdd>
[[gnu::always_inline]] inline void add_group(const Rows<R, Int4>& rows, std::int64_t byte,
                                             const GroupFactors<R>& factors, std::int64_t group,
                                             float* to) {
  const OctBits start = oct_broadcast_bits(factors.starts[group]);
  const OctBits upper = oct_shift_left(start, kUpper);
  OctBits sums[4] = {start, upper, start, upper};
#pragma GCC unroll 4
  for (std::int64_t p = 0; p < GroupFactors<R>::kPairs; ++p) {
    const OctBits first = oct_load_bits(rows.row[2 * p] + byte);
    const OctBits second = oct_load_bits(rows.row[R == 1 ? 0 : 2 * p + 1] + byte);
    const OctBits both = kSecond ? oct_high_halves(first, second) : oct_low_halves(first, second);
    const OctBits later = oct_shift_right(both, 8);
    const OctBits factor = oct_broadcast_bits(factors.pairs[p][group]);
    sums[0] = oct_add_pairs(sums[0], oct_and(both, kNibbles), factor);
    sums[1] = oct_add_pairs(sums[1], oct_and(both, kUpperNibbles), factor);
    sums[2] = oct_add_pairs(sums[2], oct_and(later, kNibbles), factor);
    sums[3] = oct_add_pairs(sums[3], oct_and(later, kUpperNibbles), factor);
  }
  for (int k = 0; k < 4; ++k) {
    const float one = factors.units[group];
    const Oct unit = oct_broadcast(k % 2 == 0 ? one : one / (1 << kUpper));
    float* const at = to + k * kOct;
    oct_store(at, oct_fma(unit, oct_from_bits(sums[k]), kAdd ? oct_load(at) : oct_zero()));
  }
}

#ifdef __AVX512F__
#include "int4_wide.inl"
#endif

template <int R, bool kAdd>
void gather_pass(const Int4* values, const RowSpan& span, const std::int64_t* ids,
                 const std::int64_t* end, const float* weights, float* out) {
  const Rows<R, Int4> rows(values, span, ids, end);
  const std::int64_t scales = scales_offset<Int4>(span.row_width);
  const std::int64_t last = span.first + span.width;
  for (std::int64_t super = span.first / kSuperblock * kSuperblock; super < last;
       super += kSuperblock) {
    const GroupFactors<R> factors(rows, scales + super / 16, weights);
    // The scales' line comes last in a row, and serves four superblocks.
    if (super / kSuperblock % 4 == 3 || super + kSuperblock >= last) {
      rows.prefetch(scales + super / 16);
    }
#ifdef __AVX512F__
    if (super >= span.first && super + kSuperblock <= last) {
      add_superblock<R, kAdd>(rows, super / 2, factors, out + super - span.first);
      continue;
    }
#endif
    for (std::int64_t g = 0; g < kOct; g += 2) {  // a block of two groups at a time
      const std::int64_t column = super + g * kInt4Group;
      if (column < span.first) continue;
      if (column >= last) break;
      rows.prefetch(column / 2);
      const std::int64_t c = column - span.first, byte = column / 2;
      if (c + kInt4Block <= span.width) {
        add_group<R, false, kAdd>(rows, byte, factors, g, out + c);
        add_group<R, true, kAdd>(rows, byte, factors, g + 1, out + c + kInt4Group);
      } else {  // a part of the block
        const std::int64_t rest = span.width - c;
        float part[kInt4Block] = {};
        for (std::int64_t i = 0; i < rest && kAdd; ++i) part[i] = out[c + i];
        add_group<R, false, true>(rows, byte, factors, g, part);
        add_group<R, true, true>(rows, byte, factors, g + 1, part + kInt4Group);
        for (std::int64_t i = 0; i < rest; ++i) out[c + i] = part[i];
      }
    }
  }
}

template <int R>
void dots_pass(const Int4* values, const RowSpan& span, const std::int64_t* ids,
               const std::int64_t* end, const float* x, float* out) {
  const Rows<R, Int4> rows(values, span, ids, end);
  const std::int64_t scales = scales_offset<Int4>(span.row_width);
  const std::int64_t last = span.first + span.width;
  Oct sums[R];
  for (int r = 0; r < R; ++r) sums[r] = oct_zero();
  for (std::int64_t super = span.first / kSuperblock * kSuperblock; super < last;
       super += kSuperblock) {
    if (super / kSuperblock % 4 == 3 || super + kSuperblock >= last) {  // as in gather_pass
      rows.prefetch(scales + super / 16);
    }
    float row_scales[R][kOct];
    for (int r = 0; r < R; ++r) {
      oct_store(row_scales[r], oct_load_bfloat16(rows.row[r] + scales + super / 16));
    }
    for (std::int64_t g = 0; g < kOct; g += 2) {
      const std::int64_t column = super + g * kInt4Group;
      if (column < span.first) continue;
      if (column >= last) break;
      rows.prefetch(column / 2);
      const std::int64_t c = column - span.first;
      float rest[kInt4Block];
      const float* factors = x + c;
      if (c + kInt4Block > span.width) {
        for (std::int64_t i = 0; i < kInt4Block; ++i) rest[i] = c + i < span.width ? x[c + i] : 0;
        factors = rest;
      }
      Oct units[8], minus[2] = {oct_zero(), oct_zero()};  // x / 16^k, and -8 times a group's x
      const auto prepare = [&]<int k>() __attribute__((always_inline)) {
        const Oct factor = oct_load(factors + k * kOct);
        units[k] = oct_mul(oct_broadcast(kNibbleUnit<k>), factor);
        minus[k / 4] = oct_fma(oct_broadcast(-8), factor, minus[k / 4]);
      };
      for_group<0>(prepare);
      for_group<4>(prepare);
      for (int r = 0; r < R; ++r) {
        const OctBits words = oct_load_bits(rows.row[r] + column / 2);
        Oct group[2] = {minus[0], minus[1]};
        const auto add = [&]<int k>() __attribute__((always_inline)) {
          group[k / 4] = oct_fma(units[k], nibble<k>(words), group[k / 4]);
        };
        for_group<0>(add);
        for_group<4>(add);
        sums[r] = oct_fma(oct_broadcast(row_scales[r][g]), group[0], sums[r]);
        sums[r] = oct_fma(oct_broadcast(row_scales[r][g + 1]), group[1], sums[r]);
      }
    }
  }
  for (int r = 0; r < R; ++r) out[r] = oct_sum(sums[r]);
}

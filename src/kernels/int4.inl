// SPDX-License-Identifier: Apache-2.0
// Reads of Int4 rows (quantized.h has the layout); included once per instruction set, after Oct and
// gather.inl. An Oct is eight floats. Eight words of a block, masked to their k-th nibble and taken
// as integers, are u * 16^k of eight neighbouring columns: no shuffle, one conversion. The power of
// two is taken out of the eight rows' sum. x = s (u - 8), so the sum is that of s u minus 8 sum s.

constexpr std::int64_t kOct = 8;
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

// The weighted sum of R rows in the 32 columns of half a block, its first or its second, to `to`.
// Four sums at a time: one would wait for itself. factors: of row r at r * kOct.
template <int R, int kFirst, bool kAdd>
[[gnu::always_inline]] inline void add_group(const Rows<R, Int4>& rows, std::int64_t byte,
                                             const float* factors, float offset, float* to) {
  Oct sums[4] = {oct_zero(), oct_zero(), oct_zero(), oct_zero()};
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const OctBits words = oct_load_bits(rows.row[r] + byte);
    const Oct factor = oct_broadcast(factors[r * kOct]);
    for_group<kFirst>([&]<int k>() __attribute__((always_inline)) {
      sums[k - kFirst] = oct_fma(factor, nibble<k>(words), sums[k - kFirst]);
    });
  }
  const Oct before = oct_broadcast(offset);
  for_group<kFirst>([&]<int k>() __attribute__((always_inline)) {
    const Oct total = oct_fma(oct_broadcast(kNibbleUnit<k>), sums[k - kFirst], before);
    float* const at = to + (k - kFirst) * kOct;
    oct_store(at, kAdd ? oct_add(oct_load(at), total) : total);
  });
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
    rows.prefetch(scales + super / 16);
    float factors[R][kOct];  // of row r and group g
    float offsets[kOct];
    Oct offset = oct_zero();
    for (int r = 0; r < R; ++r) {
      const Oct factor =
          oct_mul(oct_broadcast(weights[r]), oct_load_bfloat16(rows.row[r] + scales + super / 16));
      offset = oct_fma(oct_broadcast(-8), factor, offset);
      oct_store(factors[r], factor);
    }
    oct_store(offsets, offset);
#ifdef __AVX512F__
    if (super >= span.first && super + kSuperblock <= last) {
      add_superblock<R, kAdd>(rows, super / 2, factors, offsets, out + super - span.first);
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
        add_group<R, 0, kAdd>(rows, byte, factors[0] + g, offsets[g], out + c);
        add_group<R, 4, kAdd>(rows, byte, factors[0] + g + 1, offsets[g + 1], out + c + kInt4Group);
      } else {  // a part of the block
        float part[kInt4Block];
        add_group<R, 0, false>(rows, byte, factors[0] + g, offsets[g], part);
        add_group<R, 4, false>(rows, byte, factors[0] + g + 1, offsets[g + 1], part + kInt4Group);
        for (std::int64_t i = 0; c + i < span.width; ++i) {
          out[c + i] = kAdd ? out[c + i] + part[i] : part[i];
        }
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
    rows.prefetch(scales + super / 16);
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

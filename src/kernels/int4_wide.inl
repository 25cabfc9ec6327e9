// SPDX-License-Identifier: Apache-2.0
// Int4 rows with AVX-512, a superblock at a time; included by int4.inl. The same operations on each
// column as there, so the same bits, but on two blocks at once: half as many instructions.

// Nibble k of the words of two blocks, times 16^k; k = 7 as in nibble().
template <int k>
Vec wide_nibble(__m512i words) {
  if constexpr (k < 7) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(words, set1(15U << (4 * k))));
  } else {
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(words, 28));
  }
}

// Of eight numbers, a group each: that of the group named by each lane.
Vec spread(__m512i groups, const float* of_groups) {
  return _mm512_permutexvar_ps(groups, _mm512_castps256_ps512(oct_load(of_groups)));
}

// The weighted sum of R rows in the 256 columns of a superblock that begins at `byte` of each row.
template <int R, bool kAdd>
[[gnu::always_inline]] inline void add_superblock(const Rows<R, Int4>& rows, std::int64_t byte,
                                                  const float (*factors)[kOct],
                                                  const float* offsets, float* to) {
  for (int pair = 0; pair < 2; ++pair, byte += kCacheLine, to += 2 * kInt4Block) {
    // The first groups of both blocks, and the second.
    const __m512i low = _mm512_mask_blend_epi32(0xff00, set1(4 * pair), set1(4 * pair + 2));
    const __m512i high = _mm512_add_epi32(low, set1(1));
    Vec sums[8];
    for (Vec& sum : sums) sum = zero();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      __builtin_prefetch(rows.later[r] + byte);
      const __m512i words = _mm512_loadu_si512(rows.row[r] + byte);
      const Vec first = spread(low, factors[r]), second = spread(high, factors[r]);
      const auto add_nibble = [&]<int k>() __attribute__((always_inline)) {
        sums[k] = fma(k < 4 ? first : second, wide_nibble<k>(words), sums[k]);
      };
      for_group<0>(add_nibble);
      for_group<4>(add_nibble);
    }
    const Vec first = spread(low, offsets), second = spread(high, offsets);
    const auto finish = [&]<int k>() __attribute__((always_inline)) {
      sums[k] = fma(broadcast(kNibbleUnit<k>), sums[k], k < 4 ? first : second);
    };
    for_group<0>(finish);
    for_group<4>(finish);
    for (int k = 0; k < 8; k += 2) {  // 16 neighbouring columns of the first block, of the second
      float* const at = to + k * kOct;
      const Vec one = _mm512_shuffle_f32x4(sums[k], sums[k + 1], 0x44);
      const Vec other = _mm512_shuffle_f32x4(sums[k], sums[k + 1], 0xee);
      store(at, kAdd ? add(load(at), one) : one);
      store(at + kInt4Block, kAdd ? add(load(at + kInt4Block), other) : other);
    }
  }
}

// SPDX-License-Identifier: Apache-2.0
// Int4 rows with AVX-512, a superblock at a time; included by int4.inl. The same operations on each
// column as there, so the same bits, but on two blocks at once: half as many instructions.

// Of eight whole numbers, a group each: that of the group named by each lane.
__m512i spread(__m512i groups, const std::int32_t* of_groups) {
  const __m256i all = _mm256_load_si256(reinterpret_cast<const __m256i*>(of_groups));
  return _mm512_permutexvar_epi32(groups, _mm512_castsi256_si512(all));
}

// Which bytes of the second row stand in the upper half of each lane, or of the first in the lower.
__m512i half_words(bool is_high) {
  return is_high ? _mm512_set4_epi32(0x0f0e0f0e, 0x0b0a0b0a, 0x07060706, 0x03020302)
                 : _mm512_set4_epi32(0x0d0c0d0c, 0x09080908, 0x05040504, 0x01000100);
}

// The weighted sum of R rows in the 256 columns of a superblock that begins at `byte` of each row.
template <int R, bool kAdd>
[[gnu::always_inline]] inline void add_superblock(const Rows<R, Int4>& rows, std::int64_t byte,
                                                  const GroupFactors<R>& factors, float* to) {
  constexpr __mmask64 kUpperHalves = 0xccccccccccccccccU;
  const __m512i nibbles = set1(kNibbles), upper_nibbles = set1(kUpperNibbles);
  for (int pair = 0; pair < 2; ++pair, byte += kCacheLine, to += 2 * kInt4Block) {
    // The first groups of both blocks, and the second.
    const __m512i groups[2] = {
        _mm512_mask_blend_epi32(0xff00, set1(4 * pair), set1(4 * pair + 2)),
        _mm512_mask_blend_epi32(0xff00, set1(4 * pair + 1), set1(4 * pair + 3))};
    __m512i sums[8];
    for (std::int64_t half = 0; half < 2; ++half) {
      const __m512i start = spread(groups[half], factors.starts);
      sums[4 * half] = sums[4 * half + 2] = start;
      sums[4 * half + 1] = sums[4 * half + 3] = _mm512_slli_epi32(start, kUpper);
    }
#pragma GCC unroll 1  // see add_pairs
    for (std::int64_t p = 0; p < GroupFactors<R>::kPairs; ++p) {
      const std::int64_t r = 2 * p, next = R == 1 ? 0 : 2 * p + 1;
      prefetch_line(rows.later[r] + byte);
      if (R > 1) prefetch_line(rows.later[next] + byte);
      const __m512i first = _mm512_loadu_si512(rows.row[r] + byte);
      const __m512i second = _mm512_loadu_si512(rows.row[next] + byte);
      const __m512i both[2] = {
          _mm512_mask_shuffle_epi8(first, kUpperHalves, second, half_words(false)),
          _mm512_mask_shuffle_epi8(second, ~kUpperHalves, first, half_words(true))};
#pragma GCC unroll 2
      for (std::int64_t half = 0; half < 2; ++half) {
        const __m512i factor = spread(groups[half], factors.pairs[p]);
        const __m512i later = _mm512_srli_epi32(both[half], 8);
        __m512i* const sum = sums + 4 * half;
        sum[0] = add_pairs(sum[0], _mm512_and_si512(both[half], nibbles), factor);
        sum[1] = add_pairs(sum[1], _mm512_and_si512(both[half], upper_nibbles), factor);
        sum[2] = add_pairs(sum[2], _mm512_and_si512(later, nibbles), factor);
        sum[3] = add_pairs(sum[3], _mm512_and_si512(later, upper_nibbles), factor);
      }
    }
    const Vec both_units =
        _mm512_mask_blend_ps(0xff00, broadcast(1), broadcast(1.0F / (1 << kUpper)));
    for (int block = 0; block < 2; ++block) {
      for (int k = 0; k < 8; k += 2) {  // 16 neighbouring columns
        const Vec unit = mul(broadcast(factors.units[4 * pair + 2 * block + k / 4]), both_units);
        const Vec one = _mm512_cvtepi32_ps(sums[k]), other = _mm512_cvtepi32_ps(sums[k + 1]);
        const Vec columns = block == 0 ? _mm512_shuffle_f32x4(one, other, 0x44)
                                       : _mm512_shuffle_f32x4(one, other, 0xee);
        float* const at = to + block * kInt4Block + k * kOct;
        store(at, fma(unit, columns, kAdd ? load(at) : zero()));
      }
    }
  }
}

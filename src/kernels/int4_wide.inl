// SPDX-License-Identifier: Apache-2.0
// Int4 rows with AVX-512, a superblock at a time; included by int4.inl. The same operations on each
// column as there, so the same bits, but on two blocks at once: half as many instructions.

// Of eight whole numbers, a group each: that of the group named by each lane.
Bits spread(__m512i groups, const std::int32_t* of_groups) {
  const __m256i all = _mm256_load_si256(reinterpret_cast<const __m256i*>(of_groups));
  return as_bits(_mm512_permutexvar_epi32(groups, _mm512_castsi256_si512(all)));
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
  for (int pair = 0; pair < 2; ++pair, byte += kCacheLine, to += 2 * kInt4Block) {
    // The first groups of both blocks, and the second.
    const __m512i groups[2] = {
        _mm512_mask_blend_epi32(0xff00, set1(4 * pair), set1(4 * pair + 2)),
        _mm512_mask_blend_epi32(0xff00, set1(4 * pair + 1), set1(4 * pair + 3))};
    Bits sums[8];
    for (std::int64_t half = 0; half < 2; ++half) {
      const Bits start = spread(groups[half], factors.starts);
      sums[4 * half] = sums[4 * half + 2] = start;
      sums[4 * half + 1] = sums[4 * half + 3] = start << kUpper;
    }
#pragma GCC unroll 1  // see add_pairs
    for (std::int64_t p = 0; p < GroupFactors<R>::kPairs; ++p) {
      const std::int64_t r = 2 * p, next = R == 1 ? 0 : 2 * p + 1;
      prefetch_line(rows.later[r] + byte);
      if (R > 1) prefetch_line(rows.later[next] + byte);
      const __m512i first = _mm512_loadu_si512(rows.row[r] + byte);
      const __m512i second = _mm512_loadu_si512(rows.row[next] + byte);
      const Bits both[2] = {
          as_bits(_mm512_mask_shuffle_epi8(first, kUpperHalves, second, half_words(false))),
          as_bits(_mm512_mask_shuffle_epi8(second, ~kUpperHalves, first, half_words(true)))};
#pragma GCC unroll 2
      for (std::int64_t half = 0; half < 2; ++half) {
        const Bits factor = spread(groups[half], factors.pairs[p]);
        const Bits later = both[half] >> 8;
        Bits* const sum = sums + 4 * half;
        sum[0] = add_pairs(sum[0], both[half] & kNibbles, factor);
        sum[1] = add_pairs(sum[1], both[half] & kUpperNibbles, factor);
        sum[2] = add_pairs(sum[2], later & kNibbles, factor);
        sum[3] = add_pairs(sum[3], later & kUpperNibbles, factor);
      }
    }
    const Vec both_units =
        _mm512_mask_blend_ps(0xff00, broadcast(1), broadcast(1.0F / (1 << kUpper)));
    for (int block = 0; block < 2; ++block) {
      for (int k = 0; k < 8; k += 2) {  // 16 neighbouring columns
        const Vec unit = mul(broadcast(factors.units[4 * pair + 2 * block + k / 4]), both_units);
        const Vec one = _mm512_cvtepi32_ps(as_vector(sums[k])),
                  other = _mm512_cvtepi32_ps(as_vector(sums[k + 1]));
        const Vec columns = block == 0 ? _mm512_shuffle_f32x4(one, other, 0x44)
                                       : _mm512_shuffle_f32x4(one, other, 0xee);
        float* const at = to + block * kInt4Block + k * kOct;
        store(at, fma(unit, columns, kAdd ? load(at) : zero()));
      }
    }
  }
}

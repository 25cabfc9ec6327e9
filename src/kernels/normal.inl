// SPDX-License-Identifier: Apache-2.0
// Normal numbers for new rows; included once per instruction set, after Words, product() and sqrt()
// of Doubles. A lane is a block of four columns. Everything is float64 with single roundings and no
// fma, so that the bits are the same on every instruction set.

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "four columns are stored as one number");

constexpr std::int64_t kBlocks = kWidth / 2;  // lanes of 64 bits
using Floats = float __attribute__((vector_size(kBlocks * 4)));
using FloatBits = std::uint32_t __attribute__((vector_size(kBlocks * 4)));

constexpr std::uint64_t kLower = 0xffffffffU;
constexpr std::uint64_t kTwo52 = 0x4330000000000000U;  // bits of 2^52: or-ing n < 2^52 adds it

struct Philox {
  Words a, b, c, d;
};

// Philox4x32-10 [Philox11]. Only the lower half of each lane counts: product() reads no other, and
// what lies above it is cut off at the end.
Philox philox(Philox x, std::uint64_t key) {
  const Words first = Words{} + 0xD2511F53U, second = Words{} + 0xCD9E8D57U;
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Words p = product(first, x.a), q = product(second, x.c);
    x = {(q >> 32) ^ x.b ^ k0, q, (p >> 32) ^ x.d ^ k1, p};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return {x.a & kLower, x.b & kLower, x.c & kLower, x.d & kLower};
}

Doubles as_doubles(Words x) { return __builtin_bit_cast(Doubles, x); }

// The logarithm of numbers in [2^-32, 1] within one unit in the last place: fdlibm's e_log.c.
Doubles log(Doubles x) {
  constexpr std::uint64_t kHalfRoot = 0x3fe6a09e00000000U;  // bits of sqrt(1/2), cut off
  const Words bits = __builtin_bit_cast(Words, x) + (0x3ff0000000000000U - kHalfRoot);
  const Doubles exponent = as_doubles((bits >> 52) | kTwo52) - (0x1p52 + 1023);
  const Doubles f = as_doubles((bits & 0x000fffffffffffffU) + kHalfRoot) - 1.0;
  const Doubles s = f / (f + 2.0), z = s * s, w = z * z;
  const Doubles even = w * (w * (w * 1.531383769920937332e-01 + 2.222219843214978396e-01) +
                            3.999999999940941908e-01);
  const Doubles odd = z * (w * (w * (w * 1.479819860511658591e-01 + 1.818357216161805012e-01) +
                                2.857142874366239149e-01) +
                           6.666666666666735130e-01);
  const Doubles half_square = f * f * 0.5;
  return s * (half_square + (odd + even)) + exponent * 1.90821492927058770002e-10 - half_square +
         f + exponent * 6.93147180369123816490e-01;
}

struct Normals {
  Doubles x, y;
};

// Box-Muller [BoxMuller58] of two words a lane. The first uniform is in (0, 1], so that its
// logarithm exists; the second is an angle of word / 2^32 turns.
Normals box_muller(Words a, Words b) {
  const Doubles uniform = (as_doubles(a | kTwo52) - (0x1p52 - 1)) * 0x1p-32;
  const Doubles radius = sqrt(log(uniform) * -2.0);
  // The angle is `quarter` quarters of a turn, and a rest of at most half of one: both exact.
  const Words shifted = b + (1U << 29);
  const Words quarter = shifted >> 30;
  const Doubles rest = (as_doubles((shifted & 0x3fffffffU) | kTwo52) - (0x1p52 + 0x1p29)) *
                       (6.283185307179586477 * 0x1p-32);
  // fdlibm's k_sin.c and k_cos.c, within one unit in the last place.
  const Doubles z = rest * rest, w = z * z;
  const Doubles sine_tail =
      z * (z * (z * (z * 1.58969099521155010221e-10 + -2.50507602534068634195e-08) +
                2.75573137070700676789e-06) +
           -1.98412698298579493134e-04) +
      8.33333333332248946124e-03;
  const Doubles sine = rest + z * rest * (z * sine_tail + -1.66666666666666324348e-01);
  const Doubles cosine_tail =
      z * (z * (z * 2.48015872894767294178e-05 + -1.38888888888741095749e-03) +
           4.16666666666666019037e-02) +
      w * w *
          (z * (z * -1.13596475577881948265e-11 + 2.08757232129817482790e-09) +
           -2.75573143513906633035e-07);
  const Doubles half = z * 0.5, most = 1.0 - half;
  const Doubles cosine = most + (((1.0 - most) - half) + z * cosine_tail);

  const Words swap = Words{} - (quarter & 1U);
  const Words sine_bits = __builtin_bit_cast(Words, sine);
  const Words cosine_bits = __builtin_bit_cast(Words, cosine);
  const Words x = ((sine_bits & swap) | (cosine_bits & ~swap)) ^ (((quarter + 1U) & 2U) << 62);
  const Words y = ((cosine_bits & swap) | (sine_bits & ~swap)) ^ ((quarter & 2U) << 62);
  return {radius * as_doubles(x), radius * as_doubles(y)};
}

Words float_bits(Doubles x) {  // rounded to float
  const Floats rounded = __builtin_convertvector(x, Floats);
  return __builtin_convertvector(__builtin_bit_cast(FloatBits, rounded), Words);
}

Words bfloat16_bits(Doubles x) {  // of the float: to nearest, ties to even; x is finite
  const Words bits = float_bits(x);
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

// The first n <= 4 * kBlocks columns of the blocks.
[[gnu::always_inline]] inline void store_blocks(float* row, Normals low, Normals high,
                                                std::int64_t n) {
  const Words front = float_bits(low.x) | (float_bits(low.y) << 32);
  const Words back = float_bits(high.x) | (float_bits(high.y) << 32);
  std::uint64_t columns[2 * kBlocks];
  for (std::int64_t i = 0; i < kBlocks; ++i) {
    columns[2 * i] = front[i];
    columns[2 * i + 1] = back[i];
  }
  __builtin_memcpy(row, columns, static_cast<std::size_t>(n) * sizeof(float));
}

[[gnu::always_inline]] inline void store_blocks(BFloat16* row, Normals low, Normals high,
                                                std::int64_t n) {
  const Words columns = bfloat16_bits(low.x) | (bfloat16_bits(low.y) << 16) |
                        (bfloat16_bits(high.x) << 32) | (bfloat16_bits(high.y) << 48);
  __builtin_memcpy(row, &columns, static_cast<std::size_t>(n) * sizeof(BFloat16));
}

template <class Row>
void normal(Row* rows, std::int64_t width, std::int64_t first, std::int64_t last, double std,
            std::uint64_t seed, std::int64_t first_column) noexcept {
  Words lanes;
  for (std::int64_t i = 0; i < kBlocks; ++i) lanes[i] = static_cast<std::uint64_t>(i);
  for (std::int64_t slot = first; slot < last; ++slot) {
    Row* row = rows + (slot - first) * width;
    const Words s = Words{} + static_cast<std::uint64_t>(slot);
    for (std::int64_t column = 0; column < width; column += 4 * kBlocks) {
      const Words block = lanes + static_cast<std::uint64_t>((first_column + column) / 4);
      const Philox words = philox({s, s >> 32, block, block >> 32}, seed);
      Normals low = box_muller(words.a, words.b), high = box_muller(words.c, words.d);
      low = {low.x * std, low.y * std};
      high = {high.x * std, high.y * std};
      if (column + 4 * kBlocks <= width) {  // a constant count, so that it is one store
        store_blocks(row + column, low, high, 4 * kBlocks);
      } else {
        store_blocks(row + column, low, high, width - column);
      }
    }
  }
}

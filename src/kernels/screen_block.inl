// SPDX-License-Identifier: Apache-2.0
// Upper bounds of the scores of blocks of queries from products of 8-bit numbers (kernels.h), where
// one instruction multiplies and adds 64 of them: included once, with AVX-512 VNNI.

constexpr std::int64_t kGroup = kScreenGroup;  // keys side by side: the lanes of a vector
constexpr std::int64_t kQuad = 4;              // columns that one lane multiplies at once

// What 8 bits make of x (width): numbers at most 127 in size times unit.
struct Packed {
  float unit, norm, error;  // |x| and |x - unit * numbers| are at most the latter two
  std::int32_t sum;         // of the numbers
};

// put(c, sixteen numbers of 8 bits) for c = 0, 16, ... below the width; zeros behind it.
template <class Put>
[[gnu::always_inline]] inline Packed pack_numbers(const float* x, std::int64_t width,
                                                  const Put& put) {
  const auto columns = [&](std::int64_t c) {
    return c + kWidth <= width ? load(x + c) : load(x + c, width - c);
  };
  Vec most = zero(), squares = zero();
  for (std::int64_t c = 0; c < width; c += kWidth) {
    const Vec v = columns(c);
    most = _mm512_max_ps(most, _mm512_abs_ps(v));
    squares = fma(v, v, squares);
  }
  const float greatest = _mm512_reduce_max_ps(most);
  Packed packed{};
  packed.unit = greatest / 127;
  // A unit that is denormal may be off by much: hence the limits.
  const Vec per_unit = broadcast(packed.unit > 0 ? 1 / packed.unit : 0);
  const __m512i limit = _mm512_set1_epi32(127);
  Vec errors = zero();
  __m512i total = _mm512_setzero_si512();
  for (std::int64_t c = 0; c < width; c += kWidth) {
    const Vec v = columns(c);
    __m512i numbers = _mm512_cvtps_epi32(mul(v, per_unit));
    numbers = _mm512_max_epi32(_mm512_min_epi32(numbers, limit), _mm512_set1_epi32(-127));
    const Vec error = sub(v, mul(broadcast(packed.unit), _mm512_cvtepi32_ps(numbers)));
    errors = fma(error, error, errors);
    total = _mm512_add_epi32(total, numbers);
    put(c, _mm512_cvtepi32_epi8(numbers));
  }
  packed.sum = _mm512_reduce_add_epi32(total);
  // Sums of squares in float32, a sixteenth of the columns a lane: off by less than width / 2^26.
  const float slack = 1 + 1e-5F + static_cast<float>(width) * 0x1p-26F;
  packed.norm = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum(squares)))) * slack;
  packed.error = _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(sum(errors)))) * slack;
  return packed;
}

bool pack_screen_keys(const float* keys, std::int64_t count, std::int64_t width,
                      const ScreenKeys& to, std::int64_t group) noexcept {
  std::int8_t* const numbers = to.numbers + group * kGroup * round_up(width, kQuad);
  const std::int64_t quads = round_up(width, kQuad) / kQuad;
  bool is_small = true;
  for (std::int64_t i = 0; i < kGroup; ++i) {
    const std::int64_t at = group * kGroup + i;
    std::int8_t* const first = numbers + i * kQuad;
    if (i >= count) {  // keys that are none
      for (std::int64_t q = 0; q < quads; ++q) {
        __builtin_memset(first + q * kGroup * kQuad, 0, kQuad);
      }
      to.unit[at] = to.error[at] = to.norm[at] = 0;
      to.start[at] = 0;
      continue;
    }
    const Packed packed =
        pack_numbers(keys + i * width, width, [&](std::int64_t c, __m128i sixteen) {
          alignas(16) std::int32_t words[4];
          _mm_store_si128(reinterpret_cast<__m128i*>(words), sixteen);
          for (std::int64_t q = 0; q < 4 && c / kQuad + q < quads; ++q) {
            __builtin_memcpy(first + (c / kQuad + q) * kGroup * kQuad, words + q, kQuad);
          }
        });
    // Beside what the 8 bits lost, what float32 sums of `width` terms may lose.
    const float rounding = 2 * (static_cast<float>(width) + 4) * 0x1p-24F;
    to.unit[at] = packed.unit;
    to.error[at] = packed.error + packed.norm * rounding;
    to.norm[at] = packed.norm + packed.error;
    to.start[at] = -128 * packed.sum;
    is_small = is_small && to.norm[at] < kMostScreened;
  }
  return is_small;
}

void pack_screen_query(const float* query, std::int64_t width, const ScreenQueries& to,
                       std::int64_t at) noexcept {
  std::uint8_t* const numbers = to.numbers + at * to.stride;
  const Packed packed = pack_numbers(query, width, [&](std::int64_t c, __m128i sixteen) {
    const __m128i shifted = _mm_add_epi8(sixteen, _mm_set1_epi8(static_cast<char>(0x80)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(numbers + c), shifted);
  });
  to.unit[at] = packed.unit;
  to.norm[at] = packed.norm;
  to.error[at] = packed.error;
}

// R queries from number `first` on, G groups of keys from `group` on.
template <int R, int G>
void screen_tile(const ScreenKeys& keys, const ScreenQueries& queries, std::int64_t first,
                 std::int64_t group, std::int64_t n, float* high) {
  const std::int64_t width = round_up(keys.width, kQuad);
  Ints sums[R][G];
  for (int g = 0; g < G; ++g) {
    const Ints start = load_ints(keys.start + (group + g) * kGroup);
    for (int r = 0; r < R; ++r) sums[r][g] = start;
  }
  const std::int8_t* key = keys.numbers + group * kGroup * width;
  const std::uint8_t* const query = queries.numbers + first * queries.stride;
  const std::int64_t stride = queries.stride;
  for (std::int64_t c = 0; c < width; c += kQuad, key += kGroup * kQuad) {
    __m512i numbers[G];
    for (int g = 0; g < G; ++g) numbers[g] = _mm512_loadu_si512(key + g * kGroup * width);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      std::int32_t quad;
      __builtin_memcpy(&quad, query + r * stride + c, sizeof quad);
      const __m512i four = _mm512_set1_epi32(quad);
      for (int g = 0; g < G; ++g) {
        sums[r][g] = as_ints(_mm512_dpbusd_epi32(as_vector(sums[r][g]), four, numbers[g]));
      }
    }
  }
  for (int g = 0; g < G; ++g) {
    const std::int64_t at = (group + g) * kGroup;
    const Vec unit = load(keys.unit + at), error = load(keys.error + at);
    const Vec norm = load(keys.norm + at);
    const std::int64_t rest = n - at < kGroup ? n - at : kGroup;
    for (int r = 0; r < R; ++r) {
      const std::int64_t q = first + r;
      const Vec score =
          mul(_mm512_cvtepi32_ps(as_vector(sums[r][g])), mul(broadcast(queries.unit[q]), unit));
      const Vec margin =
          fma(broadcast(queries.norm[q]), error, mul(broadcast(queries.error[q]), norm));
      store(high + q * n + at, add(score, margin), rest);
    }
  }
}

void screen_block(const ScreenKeys& keys, const ScreenQueries& queries, std::int64_t count,
                  float* high) noexcept {
  const std::int64_t n = keys.n, groups = round_up(n, kGroup) / kGroup;
  for (std::int64_t g = 0; g < groups; g += 2) {
    in_passes<kRowsAtOnce>(0, count, [&]<int R>(std::int64_t i) {
      if (g + 2 <= groups) {
        screen_tile<R, 2>(keys, queries, i, g, n, high);
      } else {
        screen_tile<R, 1>(keys, queries, i, g, n, high);
      }
    });
  }
}

std::int64_t screen_candidates(const ScreenKeys& keys, float query_norm, float query_error,
                               const float* high, std::int64_t k, std::int32_t* index,
                               void* scratch) noexcept {
  const std::int64_t n = keys.n;
  const Survivors found(scratch, n);
  const std::int64_t count =
      survivors(high, n, reached_by(high, n, k, k + k / 8), found.values, found.index);
  // The scores of all of these, k or more, reach the least of their lower bounds.
  float bound = as_float(kExponent);
  for (std::int64_t j = 0; j < count; ++j) {
    const std::int64_t i = found.index[j];
    const float margin = query_norm * keys.error[i] + query_error * keys.norm[i];
    const float low = found.values[j] - 2 * margin;
    bound = low < bound ? low : bound;
  }
  return survivors(high, n, bound, found.values, index);
}

void screen_scores(const float* keys, std::int64_t width, const std::int32_t* index,
                   std::int64_t count, const float* query, float* out) noexcept {
  in_passes<kRowsAtOnce>(0, count, [&]<int R>(std::int64_t i) {
    const float* row[R];
    for (int r = 0; r < R; ++r) row[r] = keys + index[i + r] * width;
    plain_dots(row, width, query, out + i, [](int, std::int64_t) {});
  });
}

constexpr BlockScreen kBlockScreen = {pack_screen_keys, pack_screen_query, screen_block,
                                      screen_candidates, screen_scores};

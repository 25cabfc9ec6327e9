// SPDX-License-Identifier: Apache-2.0
// The k best of a few scores without a sort: a bound that hardly more than k of them reach, found
// by halving; then each survivor's rank, counted. Included once per instruction set, after Ints.

constexpr std::int64_t kMostRanked =
    128;  // survivors; beyond, n^2 comparisons cost more than a sort
constexpr std::int64_t kMostBounded = 512;  // numbers that a bound is looked for in

// How many of scores[0, n) reach the bound; n is a multiple of kWidth.
std::int64_t reaching(const float* scores, std::int64_t n, float bound) {
  const Vec level = broadcast(bound);
  Ints counts = broadcast_int(0);
  for (std::int64_t i = 0; i < n; i += kWidth)
    counts = count_if_reached(counts, load(scores + i), level);
  return sum_ints(counts);
}

// A number that at least k of scores[0, n) reach, and not many more where their values allow; -inf
// where none is found (infinities, NaN). Fills up a last vector: there must be room for it.
float bound_of(float* scores, std::int64_t n, std::int64_t k) {
  float low = scores[0], high = scores[0];
  std::int64_t i = kWidth;
  if (i <= n) {
    Vec most = load(scores), least = sub(zero(), most);
    for (; i + kWidth <= n; i += kWidth) {
      most = max(load(scores + i), most);
      least = max(sub(zero(), load(scores + i)), least);
    }
    float lanes[2][kWidth];
    store(lanes[0], most);
    store(lanes[1], least);
    for (std::int64_t j = 0; j < kWidth; ++j) {
      high = lanes[0][j] > high ? lanes[0][j] : high;
      low = -lanes[1][j] < low ? -lanes[1][j] : low;
    }
  }
  for (i -= kWidth; i < n; ++i) {
    high = scores[i] > high ? scores[i] : high;
    low = scores[i] < low ? scores[i] : low;
  }
  for (; n % kWidth != 0; ++n) scores[n] = as_float(0xff800000U);
  const float none = as_float(0xff800000U);
  if (reaching(scores, n, low) < k) return none;
  const std::int64_t enough = k + k / 8;
  for (int halving = 0; halving < 24; ++halving) {
    const float middle = 0.5F * low + 0.5F * high;
    if (!(middle > low) || !(middle < high)) break;
    const std::int64_t count = reaching(scores, n, middle);
    if (count >= k) {
      low = middle;
      if (count <= enough) break;
    } else {
      high = middle;
    }
  }
  return low;
}

// Appends those of scores[0, n) that are not below the bound, with their index. values and index
// have room for n + kWidth. Returns their number.
std::int64_t survivors(const float* scores, std::int64_t n, float bound, float* values,
                       std::int32_t* index) {
  std::int64_t count = 0, i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec v = load(scores + i);
    count +=
        append(v, not_less(v, bound), static_cast<std::int32_t>(i), values + count, index + count);
  }
  for (; i < n; ++i) {
    if (scores[i] < bound) continue;
    values[count] = scores[i];
    index[count++] = static_cast<std::int32_t>(i);
  }
  return count;
}

// ranks[i] = how many of keys[0, count) are greater than keys[i], for kBlocks vectors from i on.
template <int kBlocks>
void count_greater(const std::int32_t* keys, std::int64_t count, std::int64_t i,
                   std::int32_t* ranks) {
  Ints mine[kBlocks], greater[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    mine[b] = load_ints(keys + i + b * kWidth);
    greater[b] = broadcast_int(0);
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const Ints other = broadcast_int(keys[j]);
    for (int b = 0; b < kBlocks; ++b) greater[b] = count_if_greater(greater[b], other, mine[b]);
  }
  for (int b = 0; b < kBlocks; ++b) store_ints(ranks + i + b * kWidth, greater[b]);
}

// place(rank, i) for the k best of values[0, count), count <= kMostRanked; equal ones by their
// order. values has room for a whole vector behind the last.
template <class Place>
[[gnu::always_inline]] inline void rank(float* values, std::int64_t count, std::int64_t k,
                                        const Place& place) {
  std::int32_t keys[kMostRanked + kWidth], ranks[kMostRanked + kWidth];
  std::int32_t taken[kMostRanked + kWidth];  // by earlier ones of equal value
  for (std::int64_t i = 0; i < count; i += kWidth) {
    store_ints(keys + i, ordered(load(values + i)));
    store_ints(taken + i, broadcast_int(0));
  }
  std::int64_t i = 0;
  for (; i + 4 * kWidth < count; i += 5 * kWidth) count_greater<5>(keys, count, i, ranks);
  for (; i < count; i += kWidth) count_greater<1>(keys, count, i, ranks);
  for (i = 0; i < count; ++i) {
    const std::int64_t at = ranks[i] + taken[ranks[i]]++;
    if (at < k) place(at, i);
  }
}

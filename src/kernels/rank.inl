// SPDX-License-Identifier: Apache-2.0
// The k best of a few scores without a sort: a bound that hardly more than k of them reach, found
// by halving; then each survivor's rank, counted. Included once per instruction set, after Ints.

constexpr std::int64_t kMostRanked =
    128;  // survivors; beyond, n^2 comparisons cost more than a sort
constexpr std::int64_t kMostBounded = 512;  // numbers that a bound is looked for in

// How many of scores[0, n) reach the bound; n is a multiple of kWidth.
std::int64_t reaching(const float* scores, std::int64_t n, float bound) {
  const Vec level = broadcast(bound);
  Reached reached;
  for (std::int64_t i = 0; i < n; i += kWidth) reached.add(load(scores + i), level);
  return reached.total();
}

// How many may reach a bound where each costs a rank: as many as fill the vectors of the k.
std::int64_t enough_to_rank(std::int64_t k) {
  const std::int64_t all = round_up(k + k / 8, kWidth);
  return k <= kMostRanked && all > kMostRanked ? kMostRanked : all;
}

// A number that at least k of scores[0, n) reach, and at most `enough` where their values allow;
// -inf where none is found (infinities, NaN). Fills up a last vector: there must be room for it.
float bound_of(float* scores, std::int64_t n, std::int64_t k, std::int64_t enough) {
  const float none = as_float(0xff800000U);
  const std::int64_t whole = n / kWidth * kWidth;
  float low = scores[0], high = scores[0];
  if (whole > 0) {
    Vec most = load(scores), least = sub(zero(), most);
    for (std::int64_t i = kWidth; i < whole; i += kWidth) {
      most = max(load(scores + i), most);
      least = max(sub(zero(), load(scores + i)), least);
    }
    high = greatest(most);
    low = -greatest(least);
  }
  for (std::int64_t i = whole; i < n; ++i) {
    high = scores[i] > high ? scores[i] : high;
    low = scores[i] < low ? scores[i] : low;
  }
  for (; n % kWidth != 0; ++n) scores[n] = none;
  bool is_reached = false;  // the least is, where all are numbers
  for (int halving = 0; halving < 24; ++halving) {
    const float middle = 0.5F * low + 0.5F * high;
    if (!(middle > low) || !(middle < high)) break;
    const std::int64_t count = reaching(scores, n, middle);
    const bool is_low = count >= k;  // nobody can foresee it: no branch
    is_reached |= is_low;
    low = is_low ? middle : low;
    high = is_low ? high : middle;
    if (is_low & (count <= enough)) break;
  }
  return is_reached || reaching(scores, n, low) >= k ? low : none;
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

// place[j]: which of values[0, count), count <= kMostRanked, comes j-th; equal ones in their order.
// values has room for a whole vector behind the last.
struct Ranked {
  std::int32_t place[kMostRanked + kWidth];

  Ranked(const float* values, std::int64_t count) {
    std::int32_t keys[kMostRanked + kWidth], ranks[kMostRanked + kWidth];
    std::int64_t whole = 0;
    for (; whole < count; whole += kWidth) {
      store_ints(keys + whole, ordered(load(values + whole)));
      store_ints(place + whole, broadcast_int(-1));
    }
    std::int64_t i = 0;
    for (; i + 4 * kWidth < count; i += 5 * kWidth) count_greater<5>(keys, count, i, ranks);
    // Side by side, for a count waits for the one before.
    const std::int64_t rest = count - i;
    if (rest > 3 * kWidth) {
      count_greater<4>(keys, count, i, ranks);
    } else if (rest > 2 * kWidth) {
      count_greater<3>(keys, count, i, ranks);
    } else if (rest > kWidth) {
      count_greater<2>(keys, count, i, ranks);
    } else if (rest > 0) {
      count_greater<1>(keys, count, i, ranks);
    }
    for (i = 0; i < count; ++i) place[ranks[i]] = static_cast<std::int32_t>(i);
    // Where two are equal, one has taken the other's place and left one free.
    std::int64_t sum = whole - count;
    for (i = 0; i < whole; ++i) sum += place[i];
    if (sum == count * (count - 1) / 2) return;
    std::int32_t taken[kMostRanked] = {};
    for (i = 0; i < count; ++i) place[ranks[i] + taken[ranks[i]]++] = static_cast<std::int32_t>(i);
  }
};

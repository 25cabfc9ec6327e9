// SPDX-License-Identifier: Apache-2.0
// The k best of n scores, and of the sums of two sorted lists; softmax of what was found. Included
// once per instruction set, after rank.inl.

// The scratch of both: survivors of the bound, or numbers to sort.
struct Survivors {
  float* values;
  std::int32_t* index;
  Survivors(void* scratch, std::int64_t n)
      : values(static_cast<float*>(scratch)),
        index(reinterpret_cast<std::int32_t*>(values + n + kWidth)) {}
};

// top_k by sorting what reaches the bound: for large k, and for scores with many equal ones.
void sorted_top_k(const float* scores, std::int64_t n, std::int64_t k, float bound, float* best,
                  std::int32_t* index, void* scratch) {
  auto* candidates = static_cast<std::uint64_t*>(scratch);
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!(scores[i] < bound))
      candidates[count++] = ranked(scores[i], static_cast<std::uint32_t>(i));
  }
  sort_first(candidates, count, k);
  for (std::int64_t j = 0; j < k; ++j) {
    const std::uint32_t at = place_of(candidates[j]);
    index[j] = static_cast<std::int32_t>(at);
    best[j] = scores[at];
  }
}

// A number that at least k scores reach: at least k of the maxima of disjoint groups do, and at
// most `enough` of these where their values allow; or of the scores themselves where they are few.
float reached_by(const float* scores, std::int64_t n, std::int64_t k, std::int64_t enough) {
  alignas(64) float maxima[kMostBounded + kWidth];
  const float none = as_float(0xff800000U);
  if (n < 8 * k && n <= kMostBounded) {
    for (std::int64_t i = 0; i < n; ++i) maxima[i] = scores[i];
    return bound_of(maxima, n, k, enough);
  }
  // Four times as many groups as are wanted: then few of them hold two of the best.
  const std::int64_t groups = round_up(4 * k, kWidth);
  if (groups > kMostBounded || groups > n) return none;
  Vec* const first = reinterpret_cast<Vec*>(maxima);
  const std::int64_t vecs = groups / kWidth;
  for (std::int64_t v = 0; v < vecs; ++v) first[v] = load(scores + v * kWidth);
  std::int64_t c = groups;
  for (; c + groups <= n; c += groups) {
    for (std::int64_t v = 0; v < vecs; ++v) {
      first[v] = max(load(scores + c + v * kWidth), first[v]);
    }
  }
  for (std::int64_t v = 0; c + kWidth <= n; c += kWidth, ++v) {
    first[v] = max(load(scores + c), first[v]);
  }
  // Some groups hold two that reach the bound. What is left over could only raise it.
  return bound_of(maxima, groups, k, k + (enough - k) / 2);
}

void top_k(const float* scores, std::int64_t n, std::int64_t k, float* best, std::int32_t* index,
           void* scratch) noexcept {
  const float bound = reached_by(scores, n, k, enough_to_rank(k));
  const Survivors found(scratch, n);
  const std::int64_t count =
      k > kMostRanked ? n : survivors(scores, n, bound, found.values, found.index);
  if (count > kMostRanked) return sorted_top_k(scores, n, k, bound, best, index, scratch);
  const Ranked order(found.values, count);
  for (std::int64_t j = 0; j < k; ++j) {
    best[j] = found.values[order.place[j]];
    index[j] = found.index[order.place[j]];
  }
}

// Sums of all pairs that can win, in the order of the plan. Whole vectors are written: what is
// beyond a line's end is written again by the next line. Returns their number.
std::int64_t pair_sums(const float* row_score, const float* col_score, std::int64_t k,
                       float* sums) {
  std::int64_t count = 0, a = 0;
  for (; a < k && 2 * (a + 1) <= k; ++a) {
    const Vec row = broadcast(row_score[a]);
    const std::int64_t columns = k / (a + 1);
    for (std::int64_t b = 0; b < columns; b += kWidth) {
      if (b + kWidth <= k) {
        store(sums + count + b, add(row, load(col_score + b)));
      } else {
        store(sums + count + b, add(row, load(col_score + b, k - b)));
      }
    }
    count += columns;
  }
  const Vec column = broadcast(col_score[0]);  // the other rows have the best column alone
  for (std::int64_t i = a; i < k; i += kWidth) {
    const std::int64_t n = k - i < kWidth ? k - i : kWidth;
    store(sums + count + i - a, add(load(row_score + i, n), column), n);
  }
  return count + k - a;
}

void combine(const float* row_score, const std::int32_t* row_index, const float* col_score,
             const std::int32_t* col_index, std::int64_t k, const std::uint32_t* plan,
             float* scores, std::int64_t* slots, void* scratch) noexcept {
  // Places in the plan fit: n is what combine_scratch_bytes() counted.
  auto* const sums = static_cast<float*>(scratch);
  const std::int64_t n = pair_sums(row_score, col_score, k, sums);
  const auto take = [&](std::int64_t at, float score, std::uint32_t pair) {
    scores[at] = score;
    slots[at] = slot_of(row_index[pair >> 16], col_index[pair & 0xffffU]);
  };
  float* const rest = sums + round_up(n, 64) + 64;
  if (n <= kMostBounded) {
    const Survivors found(rest, n);
    const float bound = bound_of(sums, n, k, enough_to_rank(k));
    const std::int64_t count = survivors(sums, n, bound, found.values, found.index);
    if (count <= kMostRanked) {
      const Ranked order(found.values, count);
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int32_t at = order.place[j];
        take(j, found.values[at], plan[found.index[at]]);
      }
      return;
    }
  }
  auto* candidates = reinterpret_cast<std::uint64_t*>(rest);
  // The p x q cells at the corner of the sorted grid are no worse than their last one: with p * q
  // >= k a number that at least k sums reach.
  float bound = as_float(0xff800000U);
  for (std::int64_t p = 1; p <= k; ++p) {
    const float last = row_score[p - 1] + col_score[(k + p - 1) / p - 1];
    if (last > bound) bound = last;
  }
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!(sums[i] < bound)) candidates[count++] = ranked(sums[i], static_cast<std::uint32_t>(i));
  }
  sort_first(candidates, count, k);
  for (std::int64_t j = 0; j < k; ++j) {
    const std::uint32_t place = place_of(candidates[j]);
    take(j, sums[place], plan[place]);
  }
}

// exp(x) for x <= 0: 2^n e^r with |r| <= ln 2 / 2, e^r by its Taylor polynomial of degree 7
// (error below 2^-27).
Vec exp_of(Vec x) {
  x = max(broadcast(-87), x);
  const Vec t = add(mul(x, broadcast(1.44269504F)), broadcast(12582912.0F));
  const Vec n = sub(t, broadcast(12582912.0F));
  Vec r = fma(n, broadcast(-0.693359375F), x);  // ln 2 in two parts, the first exact times n
  r = fma(n, broadcast(2.12194440e-4F), r);
  Vec p = broadcast(1.0F / 5040);
  for (const float c : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) {
    p = fma(p, r, broadcast(c));
  }
  return times_power(p, t);
}

void softmax(const float* scores, std::int64_t k, float* out) noexcept {
  const Vec most = broadcast(scores[0]);
  Vec total = zero();
  std::int64_t i = 0;
  for (; i + kWidth <= k; i += kWidth) {
    const Vec y = exp_of(sub(load(scores + i), most));
    total = add(total, y);
    store(out + i, y);
  }
  if (i < k) {
    store(out + i, exp_of(sub(load(scores + i, k - i), most)), k - i);
    total = add(total, load(out + i, k - i));  // the lanes behind the last are zero
  }
  // Infinity and NaN, which come first, make everything NaN.
  const Vec unit = broadcast(1 / sum(total) + (scores[0] - scores[0]));
  for (i = 0; i + kWidth <= k; i += kWidth) store(out + i, mul(load(out + i), unit));
  if (i < k) store(out + i, mul(load(out + i, k - i), unit), k - i);
}

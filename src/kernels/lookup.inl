// SPDX-License-Identifier: Apache-2.0
// The k best of n scores, and of the sums of two sorted lists; included once per instruction set,
// after Vec.

constexpr std::int64_t kGroups = 16 * kWidth;  // at most: maxima of disjoint groups of scores

// A number that at least k scores reach: the k-th greatest of the maxima of `groups` >= k disjoint
// groups.
float reached_by(const float* scores, std::int64_t n, std::int64_t k, std::int64_t groups,
                 std::uint64_t* scratch) {
  Vec maxima[kGroups / kWidth];
  const std::int64_t vecs = groups / kWidth;
  for (std::int64_t v = 0; v < vecs; ++v) maxima[v] = load(scores + v * kWidth);
  std::int64_t c = groups;
  for (; c + groups <= n; c += groups) {
    for (std::int64_t v = 0; v < vecs; ++v)
      maxima[v] = max(load(scores + c + v * kWidth), maxima[v]);
  }
  // What is left over only could raise the bound.
  float values[kGroups];
  for (std::int64_t v = 0; v < vecs; ++v) store(values + v * kWidth, maxima[v]);
  for (std::int64_t i = 0; i < groups; ++i) {
    // A NaN hides the numbers of its group: let the group promise nothing.
    const float promised = values[i] == values[i] ? values[i] : as_float(0xff800000U);
    scratch[i] = ranked(promised, static_cast<std::uint32_t>(i));
  }
  sort_first(scratch, groups, k);
  const float bound = values[place_of(scratch[k - 1])];
  return bound == bound ? bound : as_float(0xff800000U);
}

void top_k(const float* scores, std::int64_t n, std::int64_t k, float* best, std::int32_t* index,
           void* scratch) noexcept {
  auto* candidates = static_cast<std::uint64_t*>(scratch);
  // Twice as many groups as are wanted, so that the bound is tight; without room for that, no
  // bound.
  const std::int64_t groups = (2 * k + kWidth - 1) / kWidth * kWidth;
  const bool is_bounded = groups <= kGroups && 2 * groups <= n;
  const float bound =
      is_bounded ? reached_by(scores, n, k, groups, candidates) : as_float(0xff800000U);
  std::int64_t count = 0;
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    std::uint32_t lanes = not_less(load(scores + i), bound);
    while (lanes != 0) {
      const std::int64_t at = i + __builtin_ctz(lanes);
      candidates[count++] = ranked(scores[at], static_cast<std::uint32_t>(at));
      lanes &= lanes - 1;
    }
  }
  for (; i < n; ++i) {
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

void combine(const float* row_score, const std::int32_t* row_index, const float* col_score,
             const std::int32_t* col_index, std::int64_t k, float* scores, std::int64_t* slots,
             void* scratch) noexcept {
  auto* candidates = static_cast<std::uint64_t*>(scratch);
  // The p x q cells at the corner of the sorted grid are no worse than their last one: with p * q
  // >= k a number that at least k sums reach.
  float bound = as_float(0xff800000U);
  for (std::int64_t p = 1; p <= k; ++p) {
    const float last = row_score[p - 1] + col_score[(k + p - 1) / p - 1];
    if (last > bound) bound = last;
  }
  std::int64_t count = 0;
  for (std::int64_t a = 0; a < k; ++a) {
    for (std::int64_t b = 0; (a + 1) * (b + 1) <= k; ++b) {
      const float sum = row_score[a] + col_score[b];
      if (sum < bound) break;  // and so are all behind it
      candidates[count++] = ranked(sum, static_cast<std::uint32_t>(a * k + b));
    }
  }
  sort_first(candidates, count, k);
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int64_t place = place_of(candidates[j]);
    const std::int64_t a = place / k, b = place % k;
    scores[j] = row_score[a] + col_score[b];
    slots[j] = slot_of(row_index[a], col_index[b]);
  }
}

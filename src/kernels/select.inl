// SPDX-License-Identifier: Apache-2.0
// The k greatest of ranked scores, in order; included once per instruction set, after vec_bits.inl.

// A score as a number whose order is that of the scores, NaN above all; the place below it, so that
// of equal scores the earlier one is greater.
std::uint64_t ranked(float score, std::uint32_t place) {
  const std::uint32_t bits = as_bits(score + 0.0F);  // no negative zero: it equals zero
  std::uint32_t key = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  if ((bits & ~0x80000000U) > kExponent) key = ~0U;
  return (static_cast<std::uint64_t>(key) << 32) | (~place);
}
std::uint32_t place_of(std::uint64_t rank) { return ~static_cast<std::uint32_t>(rank); }

void swap(std::uint64_t& a, std::uint64_t& b) noexcept {
  const std::uint64_t c = a;
  a = b;
  b = c;
}

void insertion_sort(std::uint64_t* a, std::int64_t n) {  // descending
  for (std::int64_t i = 1; i < n; ++i) {
    const std::uint64_t x = a[i];
    std::int64_t j = i;
    for (; j > 0 && a[j - 1] < x; --j) a[j] = a[j - 1];
    a[j] = x;
  }
}

// Lets a[at] sink in the heap a[0, n), whose least number is at its root.
void sink(std::uint64_t* a, std::int64_t n, std::int64_t at) {
  const std::uint64_t x = a[at];
  for (std::int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
    if (child + 1 < n && a[child + 1] < a[child]) ++child;
    if (x <= a[child]) break;
    a[at] = a[child];
    at = child;
  }
  a[at] = x;
}

// What sort_first does, in n log k steps whatever the order of the numbers, without recursion.
void heap_sort_first(std::uint64_t* a, std::int64_t n, std::int64_t k) {
  for (std::int64_t i = k / 2 - 1; i >= 0; --i) sink(a, k, i);
  for (std::int64_t i = k; i < n; ++i) {
    if (a[i] <= a[0]) continue;
    swap(a[i], a[0]);
    sink(a, k, 0);
  }
  for (std::int64_t end = k - 1; end > 0; --end) {
    swap(a[0], a[end]);
    sink(a, end, 0);
  }
}

// Brings the k greatest of the n distinct numbers to the front, descending: quicksort that leaves
// alone what lies behind the first k. After `splits` of them it has met an order made to be slow.
void sort_first(std::uint64_t* a, std::int64_t n, std::int64_t k, int splits) {
  while (n > 24) {
    if (splits-- == 0) return heap_sort_first(a, n, k);
    const std::int64_t middle = n / 2;
    if (a[0] < a[middle]) swap(a[0], a[middle]);
    if (a[0] < a[n - 1]) swap(a[0], a[n - 1]);
    if (a[middle] < a[n - 1]) swap(a[middle], a[n - 1]);
    const std::uint64_t pivot = a[middle];
    std::int64_t i = 0, j = n - 1;
    while (i <= j) {
      while (a[i] > pivot) ++i;
      while (a[j] < pivot) --j;
      if (i <= j) swap(a[i++], a[j--]);
    }
    if (i < k) sort_first(a + i, n - i, k - i, splits);
    n = j + 1;
    if (k > n) k = n;
  }
  insertion_sort(a, n);
}

void sort_first(std::uint64_t* a, std::int64_t n, std::int64_t k) {
  const int bits = 64 - __builtin_clzll(static_cast<unsigned long long>(n) | 1U);
  sort_first(a, n, k, 2 * bits);
}

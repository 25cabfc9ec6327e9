// SPDX-License-Identifier: Apache-2.0
// Weighted sums of rows and dot products with rows; included once per instruction set, after Vec.
// Both read rows_at_once() rows side by side (kernels.h says why), then 8, 4, 2 and 1 of what is
// left.

constexpr int kRowsAtOnce = 8;  // of 1, 2, 4, 8, 16 the fastest: docs/performance.md
// A sum of whole numbers becomes floats once a pass: more rows, fewer times. With SSE2 alone the
// factors of as many rows cost more than that.
template <class Row>
constexpr int rows_at_once() {
  constexpr bool kIsWhole = std::is_same_v<Row, Int8> || std::is_same_v<Row, Int4>;
  return kIsWhole && kWidth > 4 ? 2 * kRowsAtOnce : kRowsAtOnce;
}
constexpr std::int64_t kCacheLine = 64;

// How many rows later a row is asked for: the eight that come next, or more where eight are read
// faster than memory answers.
constexpr std::int64_t kBytesAhead = 1 << 14;
constexpr std::int64_t rows_ahead(std::int64_t row_bytes) {
  std::int64_t rows = kRowsAtOnce;
  while (rows < 64 && rows * row_bytes < kBytesAhead) rows += kRowsAtOnce;
  return rows;
}

// Asks for a line into the second level of caches, which can wait for more lines at once than the
// first (docs/performance.md). What does nothing but prefetch must be inlined by force: to g++ it
// has no effect, and a call of it is left out.
[[gnu::always_inline]] inline void prefetch_line(const void* line) {
  __builtin_prefetch(line, 0, 2);
}

// What a number read from a row is to be multiplied by.
template <class Row>
float scale_of(const Row* /*row*/, const RowSpan& /*span*/) {
  return 1;
}
float scale_of(const Int8* row, const RowSpan& span) {
  float scale;
  __builtin_memcpy(&scale, row + scales_offset<Int8>(span.row_width), sizeof scale);
  return scale;
}

// Vectors that a cache line of a row becomes, of which four at a time leave registers for the
// weights.
template <class Row>
constexpr int vecs_a_step() {
  constexpr std::int64_t kVecs = kCacheLine / static_cast<std::int64_t>(sizeof(Row)) / kWidth;
  return kVecs < 1 ? 1 : kVecs > 4 ? 4 : static_cast<int>(kVecs);
}

// The first column of R rows, and of R rows to be read later.
template <int R, class Row>
struct Rows {
  const Row* row[R];
  const char* later[R];

  // `end`: behind the last readable id.
  Rows(const Row* values, const RowSpan& span, const std::int64_t* ids, const std::int64_t* end) {
    const std::int64_t ahead = rows_ahead(span.width * static_cast<std::int64_t>(sizeof(Row)));
    for (int r = 0; r < R; ++r) {
      const std::int64_t* next = ids + r + ahead;
      row[r] = values + ids[r] * span.stride;
      later[r] =
          reinterpret_cast<const char*>(values + (next < end ? *next : end[-1]) * span.stride);
    }
  }
  [[gnu::always_inline]] void prefetch(std::int64_t byte) const {
    for (int r = 0; r < R; ++r) prefetch_line(later[r] + byte);
  }
};

// The line of a row's scale, behind its numbers, which is read first.
template <int R, class Row>
void prefetch_scales(const Rows<R, Row>& /*rows*/, const RowSpan& /*span*/) {}
template <int R>
[[gnu::always_inline]] inline void prefetch_scales(const Rows<R, Int8>& rows, const RowSpan& span) {
  rows.prefetch(scales_offset<Int8>(span.row_width));
}

// Columns [c, c + kVecs * kWidth) of the sum; the rows' pointers stand at column 0 of the span.
template <int R, int kVecs, bool kAdd, class Row>
[[gnu::always_inline]] inline void add_columns(const Row* const* row, const Vec* weights,
                                               std::int64_t c, float* out) {
  Vec sums[kVecs];
  for (int v = 0; v < kVecs; ++v) sums[v] = kAdd ? load(out + c + v * kWidth) : zero();
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < kVecs; ++v) {
      sums[v] = fma(weights[r], load(row[r] + c + v * kWidth), sums[v]);
    }
  }
  for (int v = 0; v < kVecs; ++v) store(out + c + v * kWidth, sums[v]);
}

template <int R, bool kAdd>  // pairs.inl
void gather_pass(const Int8* values, const RowSpan& span, const std::int64_t* ids,
                 const std::int64_t* end, const float* weights, float* out);
template <int R, bool kAdd>  // int4.inl
void gather_pass(const Int4* values, const RowSpan& span, const std::int64_t* ids,
                 const std::int64_t* end, const float* weights, float* out);
template <int R>
void dots_pass(const Int4* values, const RowSpan& span, const std::int64_t* ids,
               const std::int64_t* end, const float* x, float* out);

// kAsks: whether rows to be read later are asked for.
template <int R, bool kAdd, class Row, bool kAsks = true>
void gather_pass(const Row* values, const RowSpan& span, const std::int64_t* ids,
                 const std::int64_t* end, const float* weights, float* out) {
  constexpr int kVecs = vecs_a_step<Row>();
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(Row));
  Rows<R, Row> rows(values, span, ids, end);
  Vec factors[R];
  for (int r = 0; r < R; ++r) {
    factors[r] = broadcast(weights[r] * scale_of(rows.row[r], span));
    rows.row[r] += span.first;
  }
  std::int64_t c = 0;
  for (; c + kVecs * kWidth <= span.width; c += kVecs * kWidth) {
    if constexpr (kAsks) rows.prefetch((span.first + c) * kSize);
    add_columns<R, kVecs, kAdd>(rows.row, factors, c, out);
  }
  if (c == span.width) return;
  if constexpr (kAsks) rows.prefetch((span.first + c) * kSize);
  for (; c + kWidth <= span.width; c += kWidth) {
    add_columns<R, 1, kAdd>(rows.row, factors, c, out);
  }
  if (c == span.width) return;
  const std::int64_t rest = span.width - c;
  Vec sum = kAdd ? load(out + c, rest) : zero();
  for (int r = 0; r < R; ++r) sum = fma(factors[r], load(rows.row[r] + c, rest), sum);
  store(out + c, sum, rest);
}

// Calls pass.operator()<R>(i) for rows [i, i + R) until all of them are done; R is kMost at first.
template <int kMost, class Pass>
[[gnu::always_inline]] inline void in_passes(std::int64_t i, std::int64_t count, const Pass& pass) {
  for (; i + kMost <= count; i += kMost) pass.template operator()<kMost>(i);
  if (kMost > kRowsAtOnce && i + kRowsAtOnce <= count) {
    pass.template operator()<kRowsAtOnce>(i);
    i += kRowsAtOnce;
  }
  if (i + 4 <= count) {
    pass.template operator()<4>(i);
    i += 4;
  }
  if (i + 2 <= count) {
    pass.template operator()<2>(i);
    i += 2;
  }
  if (i < count) pass.template operator()<1>(i);
}

template <class Row>
void gather_add(const Row* values, const RowSpan& span, const std::int64_t* ids,
                const float* weights, std::int64_t count, std::int64_t following,
                float* out) noexcept {
  const std::int64_t* end = ids + count + following;
  in_passes<rows_at_once<Row>()>(0, count, [&]<int R>(std::int64_t i) {
    gather_pass<R, true>(values, span, ids + i, end, weights + i, out);
  });
}

// A sum over `count` rows by pass.operator()<R, kAdd>(first row): the first kMost do not read out.
template <int kMost, class Pass>
[[gnu::always_inline]] inline void sum_in_passes(std::int64_t count, std::int64_t width, float* out,
                                                 const Pass& pass) {
  std::int64_t first = 0;
  if (count >= kMost) {
    pass.template operator()<kMost, false>(0);
    first = kMost;
  } else {
    for (std::int64_t c = 0; c < width; ++c) out[c] = 0;
  }
  in_passes<kMost>(first, count,
                   [&]<int R>(std::int64_t i) { pass.template operator()<R, true>(i); });
}

template <class Row>
void gather(const Row* values, const RowSpan& span, const std::int64_t* ids, const float* weights,
            std::int64_t count, std::int64_t following, float* out) noexcept {
  const std::int64_t* end = ids + count + following;
  sum_in_passes<rows_at_once<Row>()>(count, span.width, out, [&]<int R, bool kAdd>(std::int64_t i) {
    gather_pass<R, kAdd>(values, span, ids + i, end, weights + i, out);
  });
}

void gather_cached(const float* values, std::int64_t width, const std::int64_t* ids,
                   const float* weights, std::int64_t count, float* out) noexcept {
  const RowSpan span{width, width, 0, width};
  const std::int64_t* end = ids + count;
  sum_in_passes<kRowsAtOnce>(count, width, out, [&]<int R, bool kAdd>(std::int64_t i) {
    gather_pass<R, kAdd, float, false>(values, span, ids + i, end, weights + i, out);
  });
}

void gather_cached_add(const float* values, std::int64_t width, const std::int64_t* ids,
                       const float* weights, std::int64_t count, float* out) noexcept {
  const RowSpan span{width, width, 0, width};
  const std::int64_t* end = ids + count;
  in_passes<kRowsAtOnce>(0, count, [&]<int R>(std::int64_t i) {
    gather_pass<R, true, float, false>(values, span, ids + i, end, weights + i, out);
  });
}

// Sums of products of R rows, block by block, added pairwise: nodes_[l] is a sum of 2^l blocks that
// waits for its right half.
template <int R>
class BlockSums {
 public:
  // The next block's products: sums of the lanes are still to be made.
  [[gnu::always_inline]] inline void add(const Vec (&block)[kRowsAtOnce]) {
    Part part;
    sums(block, part.of);
    int level = 0;
    for (std::int64_t n = blocks_++; (n & 1) != 0; n >>= 1) part = nodes_[level++] + part;
    nodes_[level] = part;
  }
  [[gnu::always_inline]] inline void total(const float (&scales)[R], float* out) const {
    Part part{};
    bool is_first = true;
    int level = 0;
    for (std::int64_t n = blocks_; n != 0; n >>= 1, ++level) {  // what is left has no right half
      if ((n & 1) == 0) continue;
      part = is_first ? nodes_[level] : nodes_[level] + part;
      is_first = false;
    }
    for (int r = 0; r < R; ++r) out[r] = part.of[r] * scales[r];
  }

 private:
  struct Part {
    float of[kRowsAtOnce];
    friend Part operator+(const Part& a, const Part& b) {
      Part sum;
      for (int r = 0; r < kRowsAtOnce; ++r) sum.of[r] = a.of[r] + b.of[r];
      return sum;
    }
  };
  std::int64_t blocks_ = 0;
  Part nodes_[58];  // 2^58 blocks of 32 columns are more than any row has
};

template <int R, class Row>
void dots_pass(const Row* values, const RowSpan& span, const std::int64_t* ids,
               const std::int64_t* end, const float* x, float* out) {
  constexpr std::int64_t kStep = vecs_a_step<Row>() * kWidth;
  static_assert(kDotBlock % kWidth == 0);
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(Row));
  Rows<R, Row> rows(values, span, ids, end);
  float scales[R];
  for (int r = 0; r < R; ++r) {
    scales[r] = scale_of(rows.row[r], span);
    rows.row[r] += span.first;
  }
  BlockSums<R> total;
  Vec block[kRowsAtOnce];
  for (Vec& products : block) products = zero();
  std::int64_t c = 0;
  prefetch_scales(rows, span);
  for (; c + kDotBlock <= span.width; c += kDotBlock) {
    for (int r = 0; r < R; ++r) block[r] = zero();
    for (std::int64_t v = c; v < c + kDotBlock; v += kWidth) {
      if (v % kStep == 0) rows.prefetch((span.first + v) * kSize);
      const Vec factor = load(x + v);
      for (int r = 0; r < R; ++r) block[r] = fma(factor, load(rows.row[r] + v), block[r]);
    }
    total.add(block);
  }
  if (c < span.width) {
    rows.prefetch((span.first + c) * kSize);
    for (int r = 0; r < R; ++r) block[r] = zero();
    for (; c < span.width; c += kWidth) {
      const std::int64_t rest = span.width - c < kWidth ? span.width - c : kWidth;
      const Vec factor = load(x + c, rest);
      for (int r = 0; r < R; ++r) block[r] = fma(factor, load(rows.row[r] + c, rest), block[r]);
    }
    total.add(block);
  }
  total.total(scales, out);
}

template <class Row>
void dots(const Row* values, const RowSpan& span, const std::int64_t* ids, std::int64_t count,
          std::int64_t following, const float* x, float* out) noexcept {
  const std::int64_t* end = ids + count + following;
  in_passes<kRowsAtOnce>(0, count, [&]<int R>(std::int64_t i) {
    dots_pass<R>(values, span, ids + i, end, x, out + i);
  });
}

// out[r] = sum over c < width of x[c] * row[r][c]. ask(r, c) comes before column c of row r is
// read.
template <class Row, int R, class Ask>
[[gnu::always_inline]] inline void plain_dots(const Row* const (&row)[R], std::int64_t width,
                                              const float* x, float* out, const Ask& ask) {
  Vec totals[kRowsAtOnce];
  for (Vec& total : totals) total = zero();
  std::int64_t c = 0;
  for (; c + kWidth <= width; c += kWidth) {
    const Vec factor = load(x + c);
    for (int r = 0; r < R; ++r) {
      ask(r, c);
      totals[r] = fma(factor, load(row[r] + c), totals[r]);
    }
  }
  if (c < width) {
    const Vec factor = load(x + c, width - c);
    for (int r = 0; r < R; ++r) totals[r] = fma(factor, load(row[r] + c, width - c), totals[r]);
  }
  float all[kRowsAtOnce];
  sums(totals, all);
  for (int r = 0; r < R; ++r) out[r] = all[r];
}

template <class Row>
void dots_in_order(const Row* rows, std::int64_t width, std::int64_t count, const float* x,
                   float* out) noexcept {
  in_passes<kRowsAtOnce>(0, count, [&]<int R>(std::int64_t first) {
    const Row* row[R];
    for (int r = 0; r < R; ++r) row[r] = rows + (first + r) * width;
    // The rows that come next, or again these.
    const std::int64_t later = first + R + kRowsAtOnce <= count ? kRowsAtOnce * width : 0;
    plain_dots(row, width, x, out + first,
               [&](int r, std::int64_t c) __attribute__((always_inline)) {
                 constexpr auto kSize = static_cast<std::int64_t>(sizeof(Row));
                 if (c * kSize % kCacheLine == 0) prefetch_line(row[r] + later + c);
               });
  });
}

double squared_norm(const float* x, std::int64_t width) noexcept {
  double sums[8] = {};
  std::int64_t c = 0;
  for (; c + 8 <= width; c += 8) {
    for (int v = 0; v < 8; ++v) {
      const auto value = static_cast<double>(x[c + v]);
      sums[v] += value * value;
    }
  }
  for (; c < width; ++c) sums[0] += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

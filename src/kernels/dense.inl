// SPDX-License-Identifier: Apache-2.0
// Products of several vectors with a matrix, and the functions that stand between them in a
// decoder. Included once per instruction set, after gather.inl and lookup.inl.

constexpr int kTileRows = 4;
// With as many sums in registers as a multiply-add takes to be done, twice over.
constexpr int kTileVectors = kWidth == 16 ? 6 : 2;

// R rows by T vectors: each number that is loaded serves T or R sums. The order within a sum is
// that of plain_dots, whatever R and T.
template <int R, int T, class Row>
[[gnu::always_inline]] inline void product_tile(const Row* rows, std::int64_t width, const float* x,
                                                std::int64_t x_stride, float* out,
                                                std::int64_t out_stride) {
  constexpr int kGroups = (R * T + kRowsAtOnce - 1) / kRowsAtOnce;
  Vec totals[kGroups][kRowsAtOnce];
  for (auto& group : totals) {
    for (Vec& total : group) total = zero();
  }
  const auto add = [&](const Vec(&factor)[T], int r, Vec row) __attribute__((always_inline)) {
    for (int t = 0; t < T; ++t) {
      Vec& total = totals[(r * T + t) / kRowsAtOnce][(r * T + t) % kRowsAtOnce];
      total = fma(factor[t], row, total);
    }
  };
  Vec factor[T];
  std::int64_t c = 0;
  for (; c + kWidth <= width; c += kWidth) {
    for (int t = 0; t < T; ++t) factor[t] = load(x + t * x_stride + c);
    for (int r = 0; r < R; ++r) add(factor, r, load(rows + r * width + c));
  }
  if (c < width) {
    for (int t = 0; t < T; ++t) factor[t] = load(x + t * x_stride + c, width - c);
    for (int r = 0; r < R; ++r) add(factor, r, load(rows + r * width + c, width - c));
  }
  float all[kGroups * kRowsAtOnce];
  for (int group = 0; group < kGroups; ++group) sums(totals[group], all + group * kRowsAtOnce);
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) out[t * out_stride + r] = all[r * T + t];
  }
}

template <class Row>
void products(const Row* rows, std::int64_t width, std::int64_t count, const float* x,
              std::int64_t x_stride, std::int64_t vectors, float* out,
              std::int64_t out_stride) noexcept {
  in_passes<kTileVectors>(0, vectors, [&]<int T>(std::int64_t t) {
    in_passes<kTileRows>(0, count, [&]<int R>(std::int64_t r) {
      product_tile<R, T>(rows + r * width, width, x + t * x_stride, x_stride,
                         out + t * out_stride + r, out_stride);
    });
  });
}

// Columns [c, c + V kWidth) of the sums of T vectors of weights: each number of a row that is
// loaded serves T sums.
template <int T, int V, class Row>
[[gnu::always_inline]] inline void weighted_tile(const Row* rows, std::int64_t width,
                                                 std::int64_t count, const float* weights,
                                                 std::int64_t stride, float* out) {
  Vec totals[T][V];
  for (int t = 0; t < T; ++t) {
    for (int v = 0; v < V; ++v) totals[t][v] = load(out + t * width + v * kWidth);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    Vec row[V];
    for (int v = 0; v < V; ++v) row[v] = load(rows + i * width + v * kWidth);
    for (int t = 0; t < T; ++t) {
      const Vec weight = broadcast(weights[t * stride + i]);
      for (int v = 0; v < V; ++v) totals[t][v] = fma(weight, row[v], totals[t][v]);
    }
  }
  for (int t = 0; t < T; ++t) {
    for (int v = 0; v < V; ++v) store(out + t * width + v * kWidth, totals[t][v]);
  }
}

template <class Row>
void weighted_sums_add(const Row* rows, std::int64_t width, std::int64_t count,
                       const float* weights, std::int64_t stride, std::int64_t vectors,
                       float* out) noexcept {
  constexpr int kVectors = 4, kVecs = kWidth == 16 ? 4 : 2;  // as many sums as registers hold
  in_passes<kVectors>(0, vectors, [&]<int T>(std::int64_t t) {
    const float* weight = weights + t * stride;
    float* to = out + t * width;
    std::int64_t c = 0;
    for (; c + kVecs * kWidth <= width; c += kVecs * kWidth) {
      weighted_tile<T, kVecs>(rows + c, width, count, weight, stride, to + c);
    }
    for (; c + kWidth <= width; c += kWidth) {
      weighted_tile<T, 1>(rows + c, width, count, weight, stride, to + c);
    }
    if (c == width) return;
    for (int v = 0; v < T; ++v) {
      Vec total = load(to + v * width + c, width - c);
      for (std::int64_t i = 0; i < count; ++i) {
        total =
            fma(broadcast(weight[v * stride + i]), load(rows + i * width + c, width - c), total);
      }
      store(to + v * width + c, total, width - c);
    }
  });
}

void softmax_of_all(const float* scores, std::int64_t n, float* out) noexcept {
  Vec most = broadcast(scores[0]);
  Vec wrong = zero();  // NaN where a score is no finite number
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec score = load(scores + i);
    most = max(most, score);
    wrong = add(wrong, sub(score, score));
  }
  float highest = greatest(most);
  float rest = 0;
  for (; i < n; ++i) {
    highest = scores[i] > highest ? scores[i] : highest;
    rest += scores[i] - scores[i];
  }
  const Vec from = broadcast(highest);
  Vec total = zero();
  for (i = 0; i + kWidth <= n; i += kWidth) {
    const Vec y = exp_of(sub(load(scores + i), from));
    total = add(total, y);
    store(out + i, y);
  }
  if (i < n) {
    store(out + i, exp_of(sub(load(scores + i, n - i), from)), n - i);
    total = add(total, load(out + i, n - i));  // the lanes behind the last are zero
  }
  const Vec unit = broadcast(1 / sum(total) + (sum(wrong) + rest));
  for (i = 0; i + kWidth <= n; i += kWidth) store(out + i, mul(load(out + i), unit));
  if (i < n) store(out + i, mul(load(out + i, n - i), unit), n - i);
}

// exp_of is right for positive numbers as well, as far as float32 has them.
Vec silu_of(Vec x) {
  const Vec one = broadcast(1), least = broadcast(-87);
  const Vec minus = max(least, sub(zero(), x));
  const Vec bounded = sub(zero(), max(least, sub(zero(), minus)));
  return div(x, add(one, exp_of(bounded)));
}

void silu(const float* x, std::int64_t n, float* out) noexcept {
  std::int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) store(out + i, silu_of(load(x + i)));
  if (i < n) store(out + i, silu_of(load(x + i, n - i)), n - i);
}

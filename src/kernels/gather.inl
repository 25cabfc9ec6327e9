// SPDX-License-Identifier: Apache-2.0
// Weighted sums of rows and dot products with rows; included once per instruction set, after Vec.

constexpr std::int64_t kCacheLine = 64;
constexpr std::int64_t kRowsAhead = 8;  // rows asked for before they are needed

template <class Row>
void prefetch(const Row* row, std::int64_t count) {
  const auto* byte = reinterpret_cast<const char*>(row);
  const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(Row));
  for (std::int64_t at = 0; at < bytes; at += kCacheLine) __builtin_prefetch(byte + at);
}

// Columns [column, column + kVecs * kWidth) of the sum, in registers. While one row is added, the
// same columns of a later row are on their way; behind the last row, the next columns of the first
// ones.
template <int kVecs, bool kAdd, class Row>
void gather_block(const Row* values, std::int64_t stride, const std::int64_t* ids,
                  const float* weights, std::int64_t count, std::int64_t column, std::int64_t width,
                  float* out) {
  constexpr std::int64_t kColumns = kVecs * kWidth;
  Vec sums[kVecs];
  for (int v = 0; v < kVecs; ++v) sums[v] = kAdd ? load(out + column + v * kWidth) : zero();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kRowsAhead < count) {
      prefetch(values + ids[i + kRowsAhead] * stride + column, kColumns);
    } else if (column + kColumns < width) {
      const std::int64_t next = i + kRowsAhead - count;
      if (next < count) {
        const std::int64_t left = width - column - kColumns;
        prefetch(values + ids[next] * stride + column + kColumns,
                 left < kColumns ? left : kColumns);
      }
    }
    const Row* row = values + ids[i] * stride + column;
    const Vec weight = broadcast(weights[i]);
    for (int v = 0; v < kVecs; ++v) sums[v] = fma(weight, load(row + v * kWidth), sums[v]);
  }
  for (int v = 0; v < kVecs; ++v) store(out + column + v * kWidth, sums[v]);
}

template <bool kAdd, class Row>
void gather_rows(const Row* values, std::int64_t stride, const std::int64_t* ids,
                 const float* weights, std::int64_t count, std::int64_t width, float* out) {
  const std::int64_t first = count < kRowsAhead ? count : kRowsAhead;
  for (std::int64_t i = 0; i < first; ++i) {
    prefetch(values + ids[i] * stride, width < 8 * kWidth ? width : 8 * kWidth);
  }
  std::int64_t c = 0;
  for (; c + 8 * kWidth <= width; c += 8 * kWidth) {
    gather_block<8, kAdd>(values, stride, ids, weights, count, c, width, out);
  }
  if (c + 4 * kWidth <= width) {
    gather_block<4, kAdd>(values, stride, ids, weights, count, c, width, out);
    c += 4 * kWidth;
  }
  if (c + 2 * kWidth <= width) {
    gather_block<2, kAdd>(values, stride, ids, weights, count, c, width, out);
    c += 2 * kWidth;
  }
  if (c + kWidth <= width) {
    gather_block<1, kAdd>(values, stride, ids, weights, count, c, width, out);
    c += kWidth;
  }
  if (c == width) return;
  const std::int64_t rest = width - c;
  Vec sum = kAdd ? load(out + c, rest) : zero();
  for (std::int64_t i = 0; i < count; ++i) {
    sum = fma(broadcast(weights[i]), load(values + ids[i] * stride + c, rest), sum);
  }
  store(out + c, sum, rest);
}

template <class Row>
void gather(const Row* values, std::int64_t stride, const std::int64_t* ids, const float* weights,
            std::int64_t count, std::int64_t width, float* out) noexcept {
  gather_rows<false>(values, stride, ids, weights, count, width, out);
}

template <class Row>
void gather_add(const Row* values, std::int64_t stride, const std::int64_t* ids,
                const float* weights, std::int64_t count, std::int64_t width, float* out) noexcept {
  gather_rows<true>(values, stride, ids, weights, count, width, out);
}

template <class Row>
void dots(const Row* values, std::int64_t stride, const std::int64_t* ids, std::int64_t count,
          std::int64_t width, const float* x, float* out) noexcept {
  const std::int64_t first = count < kRowsAhead ? count : kRowsAhead;
  for (std::int64_t i = 0; i < first; ++i) prefetch(values + ids[i] * stride, width);
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kRowsAhead < count) prefetch(values + ids[i + kRowsAhead] * stride, width);
    const Row* row = values + ids[i] * stride;
    Vec sums[4] = {zero(), zero(), zero(), zero()};  // independent, to hide the latency of fma
    std::int64_t c = 0;
    for (; c + 4 * kWidth <= width; c += 4 * kWidth) {
      for (int v = 0; v < 4; ++v) {
        sums[v] = fma(load(x + c + v * kWidth), load(row + c + v * kWidth), sums[v]);
      }
    }
    for (; c + kWidth <= width; c += kWidth) sums[0] = fma(load(x + c), load(row + c), sums[0]);
    if (c < width) sums[1] = fma(load(x + c, width - c), load(row + c, width - c), sums[1]);
    out[i] = sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  }
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

// SPDX-License-Identifier: Apache-2.0
// Weighted sums of rows of whole numbers, in whole numbers; included once per instruction set,
// after gather.inl. Turning every number into a float costs more than reading it. So the factors of
// a pass, weight times scale, become whole numbers of 16 bits beside the greatest of them, and one
// instruction multiplies and adds the numbers of two rows: lanes hold a pair, the first row's
// number in the lower half. Their sum is exact in 32 bits and becomes a float once a pass.
//
// With M the greatest |factor| of the pass (Int4: of a group of columns) a factor is off by at most
// M / 65534: of a row of Int8 that is 1/258 of what rounding it to Int8 may have cost at most.
// The result is the same on every instruction set that takes as many rows a pass (gather.inl), but
// for the last rounding, where there is no fma.

constexpr std::int64_t kOct = 8;
constexpr float kMostFactor = 32767;

// The greatest size of factors so far, as bits: so one that is infinite or NaN is the greatest.
struct Greatest {
  OctBits bits = oct_bits(oct_broadcast(1e-30F));  // so that dividing by it is safe
  void add(Oct factors) { bits = oct_max_bits(bits, oct_and(oct_bits(factors), 0x7fffffffU)); }
};
// Factors as whole numbers, and what one of these stands for: no finite number, and so nothing that
// is summed either, if the greatest is none.
struct Whole {
  Oct unit, per_unit;
  explicit Whole(const Greatest& greatest) {
    const Oct most = oct_float(greatest.bits);
    unit = oct_mul(most, oct_broadcast(1 / kMostFactor));
    per_unit = oct_div(oct_broadcast(kMostFactor), most);
  }
  OctBits of(Oct factors) const { return oct_round(oct_mul(factors, per_unit)); }
};

constexpr std::uint32_t pair_of(std::int32_t first, std::int32_t second) {
  return (static_cast<std::uint32_t>(first) & 0xffffU) | static_cast<std::uint32_t>(second) << 16;
}

// The factors of R rows of Int8.
template <int R>
struct PairFactors {
  static constexpr std::int64_t kPairs = (R + 1) / 2;
  Bits of[kPairs];
  Vec unit;
  std::uint32_t start = 0;  // -128 times the sum of the factors

  static constexpr std::int64_t kOcts = (R + kOct - 1) / kOct;
  explicit PairFactors(const float (&factors)[kOcts * kOct]) {  // zeros behind R
    Greatest greatest;
    for (int r = 0; r < R; ++r) greatest.add(oct_broadcast(factors[r]));
    const Whole whole(greatest);
    std::int32_t numbers[kOcts * kOct];
    for (std::int64_t r = 0; r < kOcts * kOct; r += kOct) {
      oct_store_bits(numbers + r, whole.of(oct_load(factors + r)));
    }
    for (int r = 0; r < R; ++r) start -= 128U * static_cast<std::uint32_t>(numbers[r]);
    for (std::int64_t p = 0; p < kPairs; ++p) {
      of[p] = Bits{} + pair_of(numbers[2 * p], numbers[2 * p + 1]);
    }
    float units[kOct];
    oct_store(units, whole.unit);
    unit = broadcast(units[0]);
  }
};

// Columns [c, c + 4 kSums kWidth) of the sum. Words of two columns, side by side with the other
// row's, are multiplied as they are: the odd column counts 256 times, and is taken off in the end,
// for what leaves 32 bits in between comes back. So no number is widened. The even one must have no
// sign: 128 is added to it.
template <int R, int kSums, bool kAdd>
[[gnu::always_inline]] inline void add_pairs(const Int8* const* row, const PairFactors<R>& factors,
                                             std::int64_t c, float* out) {
  constexpr std::uint32_t kEvenSigns = 0x00800080U;
  constexpr std::int64_t kColumns = 4 * kWidth;
  Bits words[kSums][2], odd[kSums][2];
  for (int s = 0; s < kSums; ++s) {
    words[s][0] = words[s][1] = Bits{} + factors.start;
    odd[s][0] = odd[s][1] = Bits{};
  }
  // Unrolled, each load would see a row's lines one after the other, and the processor would fetch
  // what lies behind the row.
#pragma GCC unroll 1
  for (std::int64_t p = 0; p < PairFactors<R>::kPairs; ++p) {
    const Int8* const first = row[2 * p] + c;
    const Int8* const second = row[R == 1 ? 0 : 2 * p + 1] + c;
    const Bits factor = factors.of[p];
    for (int s = 0; s < kSums; ++s) {
      const Bits a = load_bytes(first + s * kColumns), b = load_bytes(second + s * kColumns);
      const Bits pairs[2] = {low_pairs(a, b) ^ kEvenSigns, high_pairs(a, b) ^ kEvenSigns};
      for (int half = 0; half < 2; ++half) {
        words[s][half] = add_pairs(words[s][half], pairs[half], factor);
        odd[s][half] = add_pairs(odd[s][half], upper_bytes(pairs[half]), factor);
      }
    }
  }
  for (int s = 0; s < kSums; ++s) {
    Vec columns[4];
    const Bits even[2] = {words[s][0] - (odd[s][0] << 8), words[s][1] - (odd[s][1] << 8)};
    in_order(even, odd[s], columns);
    for (int v = 0; v < 4; ++v) {
      float* const at = out + c + s * kColumns + v * kWidth;
      store(at, fma(factors.unit, columns[v], kAdd ? load(at) : zero()));
    }
  }
}

template <int R, bool kAdd>
void gather_pass(const Int8* values, const RowSpan& span, const std::int64_t* ids,
                 const std::int64_t* end, const float* weights, float* out) {
  constexpr std::int64_t kStep = 4 * kWidth;
  constexpr int kSums = kStep < kCacheLine ? 2 : 1;  // a cache line, or a part of one
  Rows<R, Int8> rows(values, span, ids, end);
  float products[PairFactors<R>::kOcts * kOct] = {};
  for (int r = 0; r < R; ++r) {
    products[r] = weights[r] * scale_of(rows.row[r], span);
    rows.row[r] += span.first;
  }
  const PairFactors<R> factors(products);
  prefetch_scales(rows, span);
  std::int64_t c = 0;
  for (; c + kSums * kStep <= span.width; c += kSums * kStep) {
    if (c % kCacheLine == 0) rows.prefetch(span.first + c);
    add_pairs<R, kSums, kAdd>(rows.row, factors, c, out);
  }
  if (c == span.width) return;
  rows.prefetch(span.first + c);
  for (; c + kStep <= span.width; c += kStep) add_pairs<R, 1, kAdd>(rows.row, factors, c, out);
  if (c == span.width) return;
  const std::int64_t rest = span.width - c;
  Int8 last[R][kStep] = {};
  float sum[kStep];
  for (int r = 0; r < R; ++r) {
    for (std::int64_t i = 0; i < rest; ++i) last[r][i] = rows.row[r][c + i];
    rows.row[r] = last[r];
  }
  for (std::int64_t i = 0; i < rest; ++i) sum[i] = kAdd ? out[c + i] : 0;
  add_pairs<R, 1, true>(rows.row, factors, 0, sum);
  for (std::int64_t i = 0; i < rest; ++i) out[c + i] = sum[i];
}

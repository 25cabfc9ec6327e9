// SPDX-License-Identifier: Apache-2.0
// Products of vectors of 8 bits with weights of 8 and 4 bits (packed_weights.h). Included once per
// instruction set, after dense.inl. The products of a group are summed in whole numbers, exactly;
// each becomes a float once, and these are summed in the order of the groups. So the bits of a
// number depend on its row and its vector alone.

// To unsigned 8 bits what the instructions want: 128 or 8 was added to each number, and so many
// times the vector's sum is what a sum begins with.
constexpr int sum_shift(WeightCode code) { return code == WeightCode::kInt8 ? 7 : 3; }

constexpr std::int64_t kQuads = kWeightGroup / 4;  // four columns that one step takes

// One vector reads the weights as fast as they come. The processor's own prefetches end with a page
// of 4 KiB: best of 1 and 4 KiB in `bench model --streams 1`, 1.15 times as fast as without.
constexpr std::int64_t kWeightsAhead = 4096;

// Numbers of kWidth rows: of four columns each.
template <WeightCode kCode>
[[gnu::always_inline]] inline void load_numbers(const std::uint8_t* p, Bits (&numbers)[kQuads]) {
  constexpr std::int64_t kStep = kWeightTile * 4;
  if constexpr (kCode == WeightCode::kInt8) {
    for (std::int64_t j = 0; j < kQuads; ++j)
      numbers[j] = load_bytes(reinterpret_cast<const Int8*>(p + j * kStep));
  } else {
    for (std::int64_t j = 0; j < kQuads / 2; ++j) {
      const Bits both = load_bytes(reinterpret_cast<const Int8*>(p + j * kStep));
      numbers[2 * j] = both & 0x0f0f0f0fU;
      numbers[2 * j + 1] = both >> 4 & 0x0f0f0f0fU;
    }
  }
}

// Rows [part * kWidth, ..) of a tile by T vectors.
template <WeightCode kCode, int T>
[[gnu::always_inline]] inline void packed_tile(const PackedWeights& weights, std::int64_t tile,
                                               std::int64_t part, const PackedVectors& x,
                                               std::int64_t first, Vec (&totals)[T]) {
  constexpr std::int64_t kNumbers = kWeightTile * PackedWeights::number_bytes(kCode);
  const std::int64_t groups = x.groups;
  const std::uint8_t* numbers = weights.tiles + tile * weights.tile_bytes() + part * kWidth * 4;
  const auto* row_scales = reinterpret_cast<const std::uint16_t*>(
                               weights.tiles + tile * weights.tile_bytes() + groups * kNumbers) +
                           part * kWidth;
  const std::int8_t* vectors = x.numbers + first * groups * kWeightGroup;
  const float* scales = x.scales + first * groups;
  const std::int32_t* minus_sums = x.minus_sums + first * groups;
  for (Vec& total : totals) total = zero();
  for (std::int64_t g = 0; g < groups; ++g) {
    if (T == 1 && part == 0) {
      for (std::int64_t byte = 0; byte < kNumbers; byte += kCacheLine)
        prefetch_line(numbers + g * kNumbers + kWeightsAhead + byte);
    }
    Bits row[kQuads];
    load_numbers<kCode>(numbers + g * kNumbers, row);
    const Vec scale = load_half(row_scales + g * kWeightTile);
    Vec offset = zero();
    if constexpr (kCode == WeightCode::kInt4Offset) {
      offset = load_half(row_scales + (groups + g) * kWeightTile);
    }
    for (int t = 0; t < T; ++t) {
      const std::int32_t minus_sum = minus_sums[t * groups + g];
      const std::int8_t* vector = vectors + (t * groups + g) * kWeightGroup;
      Ints sum{};
      if constexpr (kCode != WeightCode::kInt4Offset) {
        sum = broadcast_int(minus_sum) << sum_shift(kCode);
      }
      for (std::int64_t j = 0; j < kQuads; ++j) sum = add_quads(sum, row[j], vector + 4 * j);
      const Vec by = broadcast(scales[t * groups + g]);
      totals[t] = fma(as_floats(sum), mul(scale, by), totals[t]);
      if constexpr (kCode == WeightCode::kInt4Offset) {
        totals[t] = fma(offset, mul(by, broadcast(static_cast<float>(-minus_sum))), totals[t]);
      }
    }
  }
}

template <WeightCode kCode>
void packed_products_of(const PackedWeights& weights, std::int64_t first, std::int64_t end,
                        const PackedVectors& x, std::int64_t vectors, float* out,
                        std::int64_t out_stride) {
  constexpr int kVectors = kWidth == 16 ? 8 : 4;
  for (std::int64_t tile = first; tile < end; ++tile) {
    in_passes<kVectors>(0, vectors, [&]<int T>(std::int64_t t) {
      for (std::int64_t part = 0; part < kWeightTile / kWidth; ++part) {
        const std::int64_t row = tile * kWeightTile + part * kWidth;
        if (row >= weights.rows) break;
        Vec totals[T];
        packed_tile<kCode, T>(weights, tile, part, x, t, totals);
        const std::int64_t count = weights.rows - row < kWidth ? weights.rows - row : kWidth;
        for (int v = 0; v < T; ++v) store(out + (t + v) * out_stride + row, totals[v], count);
      }
    });
  }
}

void packed_products(const PackedWeights& weights, std::int64_t first, std::int64_t end,
                     const PackedVectors& x, std::int64_t vectors, float* out,
                     std::int64_t out_stride) noexcept {
  switch (weights.code) {
    case WeightCode::kInt8:
      return packed_products_of<WeightCode::kInt8>(weights, first, end, x, vectors, out,
                                                   out_stride);
    case WeightCode::kInt4:
      return packed_products_of<WeightCode::kInt4>(weights, first, end, x, vectors, out,
                                                   out_stride);
    case WeightCode::kInt4Offset:
      return packed_products_of<WeightCode::kInt4Offset>(weights, first, end, x, vectors, out,
                                                         out_stride);
  }
}

void pack_vectors(const float* x, std::int64_t width, std::int64_t vectors,
                  const PackedVectors& to) noexcept {
  constexpr int kVecs = kWeightGroup / kWidth;
  for (std::int64_t t = 0; t < vectors; ++t) {
    for (std::int64_t g = 0; g < to.groups; ++g) {
      const float* from = x + t * width + g * kWeightGroup;
      const std::int64_t count = width - g * kWeightGroup;
      Vec value[kVecs], most = zero(), wrong = zero();
      for (int v = 0; v < kVecs; ++v) {
        const std::int64_t left = count - v * kWidth;
        value[v] = left >= kWidth ? load(from + v * kWidth)
                   : left > 0     ? load(from + v * kWidth, left)
                                  : zero();
        most = max(most, max(value[v], sub(zero(), value[v])));
        wrong = add(wrong, sub(value[v], value[v]));
      }
      const float scale = greatest(most) / 127;
      constexpr float kLeast = 0x1p-126F;  // whose inverse is finite
      const Vec inverse = broadcast(scale >= kLeast ? 1 / scale : 0);
      std::int8_t* numbers = to.numbers + (t * to.groups + g) * kWeightGroup;
      std::uint32_t total = 0;  // wraps where numbers are not finite
      for (int v = 0; v < kVecs; ++v)
        total += store_nearest_bytes(numbers + v * kWidth, mul(value[v], inverse));
      to.scales[t * to.groups + g] = scale + sum(wrong);
      to.minus_sums[t * to.groups + g] = static_cast<std::int32_t>(0U - total);
    }
  }
}

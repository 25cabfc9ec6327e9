// SPDX-License-Identifier: Apache-2.0
// One optimizer step on one row; included once per instruction set, after Vec.

// Calls step(column, n) for the whole vectors (or kColumns at a time) of a row, where n is a
// constant once this is inlined, and for what is left.
template <std::int64_t kColumns = kWidth, class Step>
[[gnu::always_inline]] inline void for_columns(std::int64_t width, const Step& step) {
  std::int64_t c = 0;
  for (; c + kColumns <= width; c += kColumns) step(c, kColumns);
  if (c < width) step(c, width - c);
}

// Replaces every number x of a row by step(column, n, x): float32 as it is; bfloat16 from its
// master copy, or rounded stochastically.
template <class Step>
[[gnu::always_inline]] inline void rewrite(float* row, float* /*master*/, std::int64_t width,
                                           std::uint32_t /*key*/, const Step& step) {
  for_columns(width, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
    store(row + c, step(c, n, load(row + c, n)), n);
  });
}

template <class Step>
[[gnu::always_inline]] inline void rewrite(BFloat16* row, float* master, std::int64_t width,
                                           std::uint32_t key, const Step& step) {
  if (master != nullptr) {
    for_columns(width, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
      const Vec x = step(c, n, load(master + c, n));
      store(master + c, x, n);
      store_nearest(row + c, x, n);
    });
    return;
  }
  // Some columns are computed, then rounded: the constants of both do not fit the registers.
  constexpr std::int64_t kColumns = 128;
  alignas(64) float exact[kColumns];
  for (std::int64_t first = 0; first < width; first += kColumns) {
    const std::int64_t columns = width - first < kColumns ? width - first : kColumns;
    BFloat16* const to = row + first;
    for_columns(columns, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
      store(exact + c, step(first + c, n, load(to + c, n)), n);
    });
    for_columns<2 * kWidth>(
        columns, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
          store_stochastic(to + c, exact + c, n, key + static_cast<std::uint32_t>((first + c) / 2));
        });
  }
}

template <class Row>
void adamw(Row* row, float* master, float* m, float* v, const float* gradient, std::int64_t width,
           const AdamWStep& step) noexcept {
  const Vec beta1 = broadcast(step.beta1), beta2 = broadcast(step.beta2);
  const Vec rest1 = broadcast(1 - step.beta1), rest2 = broadcast(1 - step.beta2);
  const Vec scale = broadcast(step.gradient_scale), decay = broadcast(step.decay);
  const Vec size = broadcast(step.step_size), eps = broadcast(step.eps);
  const Vec correction = broadcast(step.v_correction), weight = broadcast(step.gradient_weight);
  rewrite(row, master, width, step.rounding_key,
          [&](std::int64_t c, std::int64_t n, Vec old) __attribute__((always_inline)) {
            const Vec g = mul(scale, mul(weight, load(gradient + c, n)));
            const Vec new_m = fma(beta1, load(m + c, n), mul(rest1, g));
            const Vec new_v = fma(beta2, load(v + c, n), mul(rest2, mul(g, g)));
            store(m + c, new_m, n);
            store(v + c, new_v, n);
            const Vec change = div(mul(size, new_m), add(sqrt(mul(new_v, correction)), eps));
            return sub(mul(decay, old), change);
          });
}

template <class Row>
void sgd(Row* row, float* master, const float* gradient, std::int64_t width,
         const SgdStep& step) noexcept {
  const Vec decay = broadcast(step.decay), lr = broadcast(step.lr * step.gradient_scale);
  const Vec weight = broadcast(step.gradient_weight);
  rewrite(row, master, width, step.rounding_key,
          [&](std::int64_t c, std::int64_t n, Vec old) __attribute__((always_inline)) {
            return sub(mul(decay, old), mul(lr, mul(weight, load(gradient + c, n))));
          });
}

template <class Row>
void momentum(Row* row, float* master, float* m, const float* gradient, std::int64_t width,
              const MomentumStep& step) noexcept {
  const Vec beta1 = broadcast(step.beta1), decay = broadcast(step.decay);
  const Vec rest1 = broadcast((1 - step.beta1) * step.gradient_scale);
  const Vec size = broadcast(step.step_size), weight = broadcast(step.gradient_weight);
  rewrite(row, master, width, step.rounding_key,
          [&](std::int64_t c, std::int64_t n, Vec old) __attribute__((always_inline)) {
            const Vec new_m =
                fma(beta1, load(m + c, n), mul(rest1, mul(weight, load(gradient + c, n))));
            store(m + c, new_m, n);
            return sub(mul(decay, old), mul(size, new_m));
          });
}

template <class Row>
void catch_up(Row* row, float* master, float* m, float* v, std::int64_t width,
              const CatchUpStep& step) noexcept {
  const Vec decay = broadcast(step.decay), one = broadcast(1);
  const Vec m_decay = broadcast(step.m_decay), v_decay = broadcast(step.v_decay);
  rewrite(row, master, width, step.rounding_key,
          [&](std::int64_t c, std::int64_t n, Vec old) __attribute__((always_inline)) {
            const Vec old_m = load(m + c, n), old_v = load(v + c, n), root = sqrt(old_v);
            Vec moved = zero();
            for (std::int64_t j = 0; j < step.num_groups; ++j) {
              const CatchUpStep::Group& group = step.groups[j];
              const Vec d = div(one, fma(root, broadcast(group.inverse_eps), one));
              Vec sum = broadcast(group.c[CatchUpStep::kTerms - 1]);
              for (int k = CatchUpStep::kTerms - 2; k >= 0; --k)
                sum = fma(sum, d, broadcast(group.c[k]));
              moved = fma(sum, d, moved);
            }
            store(m + c, mul(m_decay, old_m), n);
            store(v + c, mul(v_decay, old_v), n);
            return mul(decay, sub(old, mul(old_m, moved)));
          });
}

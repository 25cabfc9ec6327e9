// SPDX-License-Identifier: Apache-2.0
// One optimizer step on one row; included once per instruction set, after Vec.

// Where a new value goes: float32 as it is; bfloat16 from its master copy, or rounded
// stochastically.
void write(float* row, float* /*master*/, std::int64_t c, std::int64_t n, Vec x,
           std::uint32_t /*key*/) {
  store(row + c, x, n);
}

void write(BFloat16* row, float* master, std::int64_t c, std::int64_t n, Vec x, std::uint32_t key) {
  if (master != nullptr) {
    store(master + c, x, n);
    store_nearest(row + c, x, n);
  } else {
    store_stochastic(row + c, x, n, key + static_cast<std::uint32_t>(c));
  }
}

// Calls step(column, n) for the whole vectors of a row, where n is a constant once this is inlined,
// and for what is left.
template <class Step>
[[gnu::always_inline]] inline void for_columns(std::int64_t width, const Step& step) {
  std::int64_t c = 0;
  for (; c + kWidth <= width; c += kWidth) step(c, kWidth);
  if (c < width) step(c, width - c);
}

template <class Row>
void adamw(Row* row, float* master, float* m, float* v, const float* gradient, std::int64_t width,
           const AdamWStep& step) noexcept {
  const Vec beta1 = broadcast(step.beta1), beta2 = broadcast(step.beta2);
  const Vec rest1 = broadcast(1 - step.beta1), rest2 = broadcast(1 - step.beta2);
  const Vec scale = broadcast(step.gradient_scale), decay = broadcast(step.decay);
  const Vec size = broadcast(step.step_size), eps = broadcast(step.eps);
  const Vec correction = broadcast(step.v_correction);
  for_columns(width, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
    const Vec g = mul(scale, load(gradient + c, n));
    const Vec new_m = fma(beta1, load(m + c, n), mul(rest1, g));
    const Vec new_v = fma(beta2, load(v + c, n), mul(rest2, mul(g, g)));
    store(m + c, new_m, n);
    store(v + c, new_v, n);
    const Vec old = master != nullptr ? load(master + c, n) : load(row + c, n);
    const Vec change = div(mul(size, new_m), add(sqrt(mul(new_v, correction)), eps));
    write(row, master, c, n, sub(mul(decay, old), change), step.rounding_key);
  });
}

template <class Row>
void sgd(Row* row, float* master, const float* gradient, std::int64_t width,
         const SgdStep& step) noexcept {
  const Vec decay = broadcast(step.decay), lr = broadcast(step.lr * step.gradient_scale);
  for_columns(width, [&](std::int64_t c, std::int64_t n) __attribute__((always_inline)) {
    const Vec old = master != nullptr ? load(master + c, n) : load(row + c, n);
    const Vec x = sub(mul(decay, old), mul(lr, load(gradient + c, n)));
    write(row, master, c, n, x, step.rounding_key);
  });
}

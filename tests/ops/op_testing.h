// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdint>
#include <limits>
#include <utility>

namespace memlayers::testing {

inline at::Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return torch::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), torch::kFloat);
}

inline at::Tensor random_slots(at::IntArrayRef shape, std::int64_t num_slots, std::uint64_t seed) {
  return torch::randint(0, num_slots, shape, at::make_generator<at::CPUGeneratorImpl>(seed),
                        torch::kLong);
}

// A float32 sum of `terms` numbers of size `scale`, taken in another order, differs by at most
// about this.
inline double sum_tolerance(std::int64_t terms, double scale) {
  return 1.2e-7 * static_cast<double>(terms + 4) * scale;
}

inline void expect_near(const at::Tensor& got, const at::Tensor& wanted, double tolerance) {
  ASSERT_EQ(got.sizes(), wanted.sizes());
  ASSERT_EQ(got.scalar_type(), wanted.scalar_type());
  if (got.numel() == 0) return;
  EXPECT_LE((got - wanted).abs().max().item<double>(), tolerance);
}

// The same matrix, one column behind the other.
inline at::Tensor column_by_column(const at::Tensor& matrix) { return matrix.t().contiguous().t(); }

// That a weight of NaN makes its token's output NaN, and leaves the bits of all others.
template <class F>
void expect_nan_in_its_token_alone(const at::Tensor& weights, const F& read) {
  constexpr std::int64_t kToken = 4;
  const auto others = [&](const at::Tensor& out) {
    return torch::cat({out.slice(0, 0, kToken), out.slice(0, kToken + 1)});
  };
  const at::Tensor whole = read(weights);
  for (std::int64_t j = 0; j < weights.size(1); ++j) {
    at::Tensor bad = weights.clone();
    bad[kToken][j] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor out = read(bad);
    EXPECT_TRUE(out[kToken].isnan().all().item<bool>()) << "weight " << j;
    EXPECT_TRUE(torch::equal(others(out), others(whole))) << "weight " << j;
  }
}

// The same bits from f() on one thread and on three.
template <class F>
void expect_same_bits_for_any_threads(const F& f) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = f();
  at::set_num_threads(3);
  const at::Tensor three = f();
  at::set_num_threads(before);
  EXPECT_TRUE(torch::equal(one, three));
}

}  // namespace memlayers::testing

// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels/kernel_testing.h"

namespace memlayers::kernels {
namespace {

class Update : public EachIsa {};

constexpr AdamWStep kStep{.beta1 = 0.9F,
                          .beta2 = 0.95F,
                          .eps = 1e-8F,
                          .decay = 0.99F,
                          .step_size = 0.01F,
                          .v_correction = 1.7F,
                          .gradient_scale = 0.5F,
                          .rounding_key = 12345};

// The step in double precision; m and v are changed too.
std::vector<double> plain_adamw(const std::vector<float>& row, std::vector<float> m,
                                std::vector<float> v, const std::vector<float>& gradient) {
  std::vector<double> out;
  for (std::size_t c = 0; c < row.size(); ++c) {
    const double g = static_cast<double>(kStep.gradient_scale) * gradient[c];
    const double new_m = 0.9 * m[c] + 0.1 * g, new_v = 0.95 * v[c] + 0.05 * g * g;
    out.push_back(0.99 * row[c] - 0.01 * new_m / (std::sqrt(new_v * 1.7) + 1e-8));
  }
  return out;
}

// The bits of x in column c, rounded stochastically; x is finite.
std::uint32_t stochastic(float x, std::uint32_t key, std::size_t c) {
  const std::uint32_t noise = hash32(key + static_cast<std::uint32_t>(c / 2));
  return (std::bit_cast<std::uint32_t>(x) + (c % 2 == 0 ? noise & 0xffffU : noise >> 16)) >> 16;
}

std::vector<float> squares(std::vector<float> values) {
  for (float& x : values) x = x * x + 0.01F;
  return values;
}

TEST_P(Update, AdamWIsItsFormula) {
  for (std::int64_t width : kWidths) {
    std::vector<float> row = normal(width, 1), m = normal(width, 2), v = squares(normal(width, 3));
    const std::vector<float> gradient = normal(width, 4);
    const std::vector<double> wanted = plain_adamw(row, m, v, gradient);
    const std::vector<float> old_m = m;
    kernel().f32.adamw(row.data(), nullptr, m.data(), v.data(), gradient.data(), width, kStep);
    for (std::size_t c = 0; c < row.size(); ++c) {
      ASSERT_NEAR(row[c], wanted[c], 1e-6) << "width " << width;
      ASSERT_NEAR(m[c], 0.9 * old_m[c] + 0.05 * gradient[c], 1e-6);
    }
  }
}

TEST_P(Update, MasterTakesTheStepAndTheRowItsRoundedCopy) {
  for (std::int64_t width : kWidths) {
    std::vector<float> master = normal(width, 1), m = normal(width, 2),
                       v = squares(normal(width, 3));
    std::vector<float> exact = master, exact_m = m, exact_v = v;
    std::vector<BFloat16> row(static_cast<std::size_t>(width));
    const std::vector<float> gradient = normal(width, 4);
    kernel().bf16.adamw(row.data(), master.data(), m.data(), v.data(), gradient.data(), width,
                        kStep);
    kernel().f32.adamw(exact.data(), nullptr, exact_m.data(), exact_v.data(), gradient.data(),
                       width, kStep);
    EXPECT_EQ(master, exact);
    for (std::size_t c = 0; c < row.size(); ++c) {
      // To nearest: no bfloat16 is nearer.
      const float gap = std::abs(to_float(row[c]) - master[c]);
      const BFloat16 up{static_cast<std::uint16_t>(row[c].bits + 1)};
      const BFloat16 down{static_cast<std::uint16_t>(row[c].bits - 1)};
      EXPECT_LE(gap, std::abs(to_float(up) - master[c]));
      EXPECT_LE(gap, std::abs(to_float(down) - master[c]));
    }
  }
}

TEST_P(Update, TiesOfNearestRoundingGoToEven) {
  // gradient 0 and no decay: the master stays, and is rounded.
  const std::vector<float> ties{std::bit_cast<float>(0x3f808000U),
                                std::bit_cast<float>(0x3f818000U)};
  std::vector<float> master = ties;
  std::vector<BFloat16> row(2);
  const std::vector<float> gradient(2, 0);
  kernel().bf16.sgd(row.data(), master.data(), gradient.data(), 2,
                    {.decay = 1, .lr = 0, .gradient_scale = 1, .rounding_key = 0});
  EXPECT_EQ(row[0].bits, 0x3f80);
  EXPECT_EQ(row[1].bits, 0x3f82);
}

TEST_P(Update, StochasticRoundingHasTheBitsOfItsFormula) {
  for (std::int64_t width : kWidths) {
    std::vector<BFloat16> row = rows<BFloat16>(width, 1);
    const std::vector<BFloat16> before = row;
    const std::vector<float> gradient = normal(width, 2);
    const SgdStep step{.decay = 1, .lr = 0.37F, .gradient_scale = 1, .rounding_key = 77};
    kernel().bf16.sgd(row.data(), nullptr, gradient.data(), width, step);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const float x = to_float(before[c]) - 0.37F * gradient[c];
      EXPECT_EQ(row[c].bits, stochastic(x, 77, c));
    }
  }
}

TEST_P(Update, StochasticRoundingIsUnbiased) {
  // x lies a quarter, and so on, of the way between two bfloat16 that are `gap` apart. The rounded
  // value is one of the two, so its standard deviation is at most gap / 2.
  constexpr std::uint32_t kKeys = 100000;
  for (std::uint32_t fraction : {0x0001U, 0x4000U, 0x8000U, 0xf000U}) {
    const float x = std::bit_cast<float>(0x3fc00000U + fraction);  // from 1.5 up
    const double gap = 1.0 / 128;
    const std::vector<float> gradient(2, -x);
    double sums[2] = {};
    for (std::uint32_t key = 0; key < kKeys; ++key) {
      std::vector<BFloat16> row(2);
      kernel().bf16.sgd(row.data(), nullptr, gradient.data(), 2,
                        {.decay = 1, .lr = 1, .gradient_scale = 1, .rounding_key = key * 64});
      for (std::size_t c = 0; c < 2; ++c) sums[c] += to_float(row[c]);
    }
    for (double sum : sums) {
      EXPECT_NEAR(sum / kKeys, x, 5 * gap / 2 / std::sqrt(double{kKeys})) << fraction;
    }
  }
}

TEST_P(Update, AdamWRoundsStochasticallyWhatItGivesInFloat32) {
  for (std::int64_t width : kWidths) {
    std::vector<BFloat16> row = rows<BFloat16>(width, 1);
    std::vector<float> exact, m = normal(width, 2), v = squares(normal(width, 3));
    for (BFloat16 x : row) exact.push_back(to_float(x));
    std::vector<float> exact_m = m, exact_v = v;
    const std::vector<float> gradient = normal(width, 4);
    kernel().bf16.adamw(row.data(), nullptr, m.data(), v.data(), gradient.data(), width, kStep);
    kernel().f32.adamw(exact.data(), nullptr, exact_m.data(), exact_v.data(), gradient.data(),
                       width, kStep);
    EXPECT_EQ(m, exact_m);
    EXPECT_EQ(v, exact_v);
    for (std::size_t c = 0; c < row.size(); ++c) {
      EXPECT_EQ(row[c].bits, stochastic(exact[c], kStep.rounding_key, c));
    }
  }
}

TEST_P(Update, SgdIsItsFormula) {
  for (std::int64_t width : kWidths) {
    std::vector<float> row = normal(width, 1);
    const std::vector<float> before = row, gradient = normal(width, 2);
    kernel().f32.sgd(row.data(), nullptr, gradient.data(), width,
                     {.decay = 0.9F, .lr = 0.1F, .gradient_scale = 0.5F, .rounding_key = 0});
    for (std::size_t c = 0; c < row.size(); ++c) {
      ASSERT_NEAR(row[c], 0.9 * before[c] - 0.05 * gradient[c], 1e-6) << "width " << width;
    }
  }
}

TEST_P(Update, NanAndInfinityStayWhatTheyAre) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{std::bit_cast<float>(0x7f800001U), kInfinity, -kInfinity,
                                  std::bit_cast<float>(0xffc00000U)};
  for (bool has_master : {false, true}) {
    std::vector<BFloat16> row(4);
    std::vector<float> master = values, gradient(4);
    for (std::size_t c = 0; c < 4; ++c) gradient[c] = -values[c];
    kernel().bf16.sgd(row.data(), has_master ? master.data() : nullptr, gradient.data(), 4,
                      {.decay = 1, .lr = 1, .gradient_scale = 1, .rounding_key = 5});
    EXPECT_TRUE(std::isnan(to_float(row[0])) && std::isnan(to_float(row[3])));
    EXPECT_EQ(to_float(row[1]), kInfinity);
    EXPECT_EQ(to_float(row[2]), -kInfinity);
  }
}

// Where a row's step goes: float32 as it is, bfloat16 with a master or rounded stochastically.
// Calls step(row, master) for the three, starting from the same numbers, and expects the same
// result.
template <class Step>
void expect_same_for_bfloat16(std::int64_t width, std::uint32_t key, const Step& step) {
  std::vector<BFloat16> rounded = rows<BFloat16>(width, 1), with_master = rounded;
  std::vector<float> exact;
  for (BFloat16 x : rounded) exact.push_back(to_float(x));
  std::vector<float> master = exact;
  step(exact.data(), static_cast<float*>(nullptr));
  step(with_master.data(), master.data());
  step(rounded.data(), static_cast<float*>(nullptr));
  EXPECT_EQ(master, exact) << "width " << width;
  for (std::size_t c = 0; c < exact.size(); ++c) {
    const auto bits = std::bit_cast<std::uint32_t>(exact[c]);
    EXPECT_EQ(with_master[c].bits, (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
    EXPECT_EQ(rounded[c].bits, stochastic(exact[c], key, c));
  }
}

constexpr MomentumStep kMomentum{
    .beta1 = 0.9F, .decay = 0.99F, .step_size = 0.3F, .gradient_scale = 0.5F, .rounding_key = 99};

TEST_P(Update, MomentumIsItsFormula) {
  for (std::int64_t width : kWidths) {
    std::vector<float> row = normal(width, 1), m = normal(width, 2);
    const std::vector<float> before = row, old_m = m, gradient = normal(width, 4);
    kernel().f32.momentum(row.data(), nullptr, m.data(), gradient.data(), width, kMomentum);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const double new_m = 0.9 * old_m[c] + 0.05 * gradient[c];
      ASSERT_NEAR(m[c], new_m, 1e-6) << "width " << width;
      ASSERT_NEAR(row[c], 0.99 * before[c] - 0.3 * new_m, 1e-6) << "width " << width;
    }
  }
}

TEST_P(Update, MomentumOfBfloat16RowsIsThatOfFloat32Rounded) {
  for (std::int64_t width : kWidths) {
    const std::vector<float> gradient = normal(width, 4);
    expect_same_for_bfloat16(width, kMomentum.rounding_key, [&](auto* row, float* master) {
      std::vector<float> m = normal(width, 2);
      kernel().rows<std::remove_pointer_t<decltype(row)>>().momentum(
          row, master, m.data(), gradient.data(), width, kMomentum);
    });
  }
}

// A row with one contribution is not summed first: its weight goes into the step.
TEST_P(Update, AWeightedGradientIsTheGradientTimesItsWeight) {
  constexpr float kWeight = 0.3F;
  for (std::int64_t width : kWidths) {
    const std::vector<float> gradient = normal(width, 4);
    std::vector<float> product = gradient;
    for (float& g : product) g = kWeight * g;
    const auto expect_same = [&](const auto& plain, const auto& act) {
      auto weighted = plain;
      weighted.gradient_weight = kWeight;
      std::vector<float> row = normal(width, 1), m = normal(width, 2), v = squares(m);
      std::vector<float> other = row, other_m = m, other_v = v;
      act(row.data(), m.data(), v.data(), gradient.data(), weighted);
      act(other.data(), other_m.data(), other_v.data(), product.data(), plain);
      EXPECT_EQ(row, other) << "width " << width;
      EXPECT_EQ(m, other_m) << "width " << width;
      EXPECT_EQ(v, other_v) << "width " << width;
    };
    expect_same(kStep, [&](float* row, float* m, float* v, const float* g, const auto& step) {
      kernel().f32.adamw(row, nullptr, m, v, g, width, step);
    });
    expect_same(kMomentum, [&](float* row, float* m, float*, const float* g, const auto& step) {
      kernel().f32.momentum(row, nullptr, m, g, width, step);
    });
    const SgdStep sgd{.decay = 0.9F, .lr = 0.1F, .gradient_scale = 0.5F, .rounding_key = 0};
    expect_same(sgd, [&](float* row, float*, float*, const float* g, const auto& step) {
      kernel().f32.sgd(row, nullptr, g, width, step);
    });
  }
}

std::vector<CatchUpStep::Group> some_groups() {
  std::vector<CatchUpStep::Group> groups(3);
  for (std::size_t j = 0; j < groups.size(); ++j) {
    groups[j].inverse_eps = 1.0F / static_cast<float>(1 + j);
    for (int k = 0; k < CatchUpStep::kTerms; ++k) {
      groups[j].c[k] = 0.1F / static_cast<float>((k + 1) * (k % 2 == 0 ? 1 : -3));
    }
  }
  return groups;
}

CatchUpStep catch_up_step(const std::vector<CatchUpStep::Group>& groups) {
  return {.groups = groups.data(),
          .num_groups = static_cast<std::int64_t>(groups.size()),
          .decay = 0.97F,
          .m_decay = 0.5F,
          .v_decay = 0.8F,
          .rounding_key = 31};
}

TEST_P(Update, CatchingUpIsItsFormula) {
  const std::vector<CatchUpStep::Group> groups = some_groups();
  for (std::int64_t width : kWidths) {
    std::vector<float> row = normal(width, 1), m = normal(width, 2), v = squares(normal(width, 3));
    if (width > 3) v[3] = 0;
    const std::vector<float> before = row, old_m = m, old_v = v;
    kernel().f32.catch_up(row.data(), nullptr, m.data(), v.data(), width, catch_up_step(groups));
    for (std::size_t c = 0; c < row.size(); ++c) {
      double moved = 0;
      for (const CatchUpStep::Group& group : groups) {
        const double d = 1 / (1 + std::sqrt(double{old_v[c]}) * group.inverse_eps);
        for (int k = 0; k < CatchUpStep::kTerms; ++k) moved += group.c[k] * std::pow(d, k + 1);
      }
      ASSERT_NEAR(row[c], 0.97 * (before[c] - old_m[c] * moved), 2e-6) << "width " << width;
      ASSERT_NEAR(m[c], 0.5 * old_m[c], 1e-6);
      ASSERT_NEAR(v[c], 0.8 * old_v[c], 1e-6);
    }
  }
}

TEST_P(Update, CatchingUpBfloat16RowsIsThatOfFloat32Rounded) {
  const std::vector<CatchUpStep::Group> groups = some_groups();
  for (std::int64_t width : kWidths) {
    expect_same_for_bfloat16(width, 31, [&](auto* row, float* master) {
      std::vector<float> m = normal(width, 2), v = squares(normal(width, 3));
      kernel().rows<std::remove_pointer_t<decltype(row)>>().catch_up(
          row, master, m.data(), v.data(), width, catch_up_step(groups));
    });
  }
}

TEST_P(Update, CatchingUpWithoutGroupsOnlyDecays) {
  std::vector<float> row = normal(19, 1), m(19, 0.0F), v(19, 0.0F);
  const std::vector<float> before = row;
  kernel().f32.catch_up(row.data(), nullptr, m.data(), v.data(), 19,
                        {.groups = nullptr,
                         .num_groups = 0,
                         .decay = 0.5F,
                         .m_decay = 0,
                         .v_decay = 0,
                         .rounding_key = 0});
  for (std::size_t c = 0; c < row.size(); ++c) EXPECT_EQ(row[c], 0.5F * before[c]);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, Update,
                         ::testing::ValuesIn(supported().begin(), supported().end()), isa_name);

}  // namespace
}  // namespace memlayers::kernels

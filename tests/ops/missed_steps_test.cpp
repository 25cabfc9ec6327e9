// SPDX-License-Identifier: Apache-2.0
#include "ops/update/missed_steps.h"

#include <gtest/gtest.h>

#include <c10/util/Exception.h>

#include <cmath>
#include <random>

namespace memlayers::ops {
namespace {

struct Betas {
  double first, second;
};
constexpr Betas kBetas[] = {{0.9, 0.95}, {0.9, 0.999}, {0.9, 0.98},
                            {0.5, 0.9},  {0.8, 0.7},   {0.95, 0.96}};

// Learning rates that jump, rest at zero, and rise.
std::vector<std::pair<double, double>> some_steps(std::int64_t count, double weight_decay) {
  std::mt19937 generator(7);
  std::uniform_real_distribution<double> uniform(0, 1e-2);
  std::vector<std::pair<double, double>> steps;
  for (std::int64_t t = 0; t < count; ++t) {
    const double lr = uniform(generator) * static_cast<double>(1 + t) / static_cast<double>(count);
    steps.emplace_back(t % 5 == 3 ? 0 : lr, weight_decay);
  }
  return steps;
}

// What the steps after `s` make of a row of w = 0, m = 1 and this v, one after the other.
double step_by_step(const std::vector<std::pair<double, double>>& steps, std::int64_t s,
                    Betas betas, double eps, double v) {
  double w = 0, m = 1;
  for (auto t = s + 1; t <= static_cast<std::int64_t>(steps.size()); ++t) {
    const auto& [lr, decay] = steps[t - 1];
    const auto power = static_cast<double>(t);
    m *= betas.first;
    v *= betas.second;
    w = (1 - lr * decay) * w - lr / (1 - std::pow(betas.first, power)) * m /
                                   (std::sqrt(v / (1 - std::pow(betas.second, power))) + eps);
  }
  return w;
}

float at_once(const MissedSteps& missed, std::int64_t s, float v) {
  float w = 0, m = 1;
  kernels::active().f32.catch_up(&w, nullptr, &m, &v, 1, missed.of(s));
  return w;
}

// Float32's rounding of what a row moves: half an epsilon for each of the 8 terms, for each of at
// most 16 groups that are added, and for the few operations around them.
constexpr double kRounding = 1.0 / (1 << 19);

TEST(MissedSteps, FallShortOfStepsOneByOneByAtMostTheirBound) {
  for (const Betas betas : kBetas) {
    const double rho = betas.first / std::sqrt(betas.second);
    for (const double eps : {1e-8, 1e-3}) {
      for (const double weight_decay : {0.0, 0.3}) {
        for (const std::int64_t missing : {1, 2, 7, 40, 300}) {
          for (const std::int64_t s : {1, 2, 12, 400}) {
            const auto steps = some_steps(s + missing, weight_decay);
            MissedSteps missed(betas.first, betas.second, eps);
            double most_lr = 0;
            for (std::int64_t t = 1; t <= s + missing; ++t) {
              missed.add(steps[t - 1].first, steps[t - 1].second);
              if (t > s) most_lr = std::max(most_lr, steps[t - 1].first);
            }
            const auto q = [&](std::int64_t t) {
              return std::sqrt(1 - std::pow(betas.second, static_cast<double>(t)));
            };
            for (const double root : {0.0, 1e-2 * eps, eps, 5 * eps, 1e2 * eps, 1e4 * eps}) {
              const auto v = static_cast<float>(root * root);
              const double exact = step_by_step(steps, s, betas, eps, v);
              const double unit = 1 / (1 - std::pow(betas.first, static_cast<double>(s))) /
                                  (std::sqrt(static_cast<double>(v)) / q(s) + eps);
              const double bound =
                  kMissedError / std::log(1 / rho) * most_lr * q(s + missing) / q(s) * unit;
              const double short_of = at_once(missed, s, v) - exact;  // the row moves down
              const double rounding = kRounding * std::abs(exact);
              EXPECT_GE(short_of, -rounding);
              EXPECT_LE(short_of, bound + rounding)
                  << betas.first << ", " << betas.second << ", eps " << eps << ", s " << s
                  << ", missing " << missing << ", root " << root;
            }
          }
        }
      }
    }
  }
}

TEST(MissedSteps, BoundIsATinyPartOfOneStepForTheUsualBetas) {
  EXPECT_LT(kMissedError / std::log(std::sqrt(0.95) / 0.9), 2e-4);
  EXPECT_LT(kMissedError / std::log(std::sqrt(0.999) / 0.9), 2e-4);
}

TEST(MissedSteps, DecayMomentsAndRows) {
  MissedSteps missed(0.9, 0.95, 1e-8);
  for (int t = 0; t < 5; ++t) missed.add(0.1, 0.5);
  const kernels::CatchUpStep step = missed.of(2);
  EXPECT_FLOAT_EQ(step.m_decay, 0.9F * 0.9F * 0.9F);
  EXPECT_FLOAT_EQ(step.v_decay, 0.95F * 0.95F * 0.95F);
  EXPECT_FLOAT_EQ(step.decay, 0.95F * 0.95F * 0.95F);
  EXPECT_FLOAT_EQ(missed.decay_since(0), std::pow(0.95F, 5.0F));
  EXPECT_EQ(missed.of(5).num_groups, 0);
  EXPECT_EQ(missed.of(5).decay, 1);
}

TEST(MissedSteps, CanBeMadeAgainFromTheirHistoryBitForBit) {
  MissedSteps missed(0.9, 0.95, 1e-8);
  missed.reset(33);  // in the middle of a run
  for (const auto& [lr, decay] : some_steps(60, 0.1)) missed.add(lr, decay);
  MissedSteps again(0.9, 0.95, 1e-8);
  again.reset(missed.first());
  for (const auto& [lr, decay] : missed.history()) again.add(lr, decay);
  EXPECT_EQ(again.last(), 93);
  for (std::int64_t s = 33; s < 93; ++s) {
    for (const float v : {0.0F, 1e-15F, 1e-4F})
      EXPECT_EQ(at_once(missed, s, v), at_once(again, s, v));
  }
}

TEST(MissedSteps, CountAsNoneForARowFromBeforeTheFirst) {
  MissedSteps missed(0.9, 0.95, 1e-8);
  missed.reset(10);
  missed.add(0.1, 0);
  EXPECT_EQ(at_once(missed, 3, 1.0F), at_once(missed, 10, 1.0F));
}

TEST(MissedSteps, WithoutMomentumMoveNothing) {
  MissedSteps missed(0, 0.9, 1e-8);
  for (int t = 0; t < 5; ++t) missed.add(0.1, 0.5);
  EXPECT_EQ(missed.of(1).num_groups, 0);
  EXPECT_EQ(missed.of(1).m_decay, 0);
}

TEST(MissedSteps, RefuseBetasWhoseSumHasNoLimit) {
  EXPECT_THROW(MissedSteps(0.95, 0.9, 1e-8), c10::ValueError);
  EXPECT_THROW(MissedSteps(0.9, 0.81, 1e-8), c10::ValueError);
  EXPECT_THROW(MissedSteps(0.9, 1, 1e-8), c10::ValueError);
  EXPECT_THROW(MissedSteps(0.9, 0.95, 0), c10::ValueError);
}

}  // namespace
}  // namespace memlayers::ops

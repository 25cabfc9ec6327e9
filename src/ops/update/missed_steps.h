// SPDX-License-Identifier: Apache-2.0
// What AdamW [AdamW19] does to a row in steps in which its gradient is zero, for many steps at
// once: the arithmetic behind PoolOptimizer::kDenseAdamW. Derivation: docs/math.md.
//
// A row that is current to step s (w, m, v) has at step n > s missed the steps t = s + i, i = 1 ..
// n - s. With r = sqrt(beta2), rho = beta1 / r, q_t = sqrt(1 - beta2^t), e_t = eps q_t / r^i and
// D(t) = product over the steps after t of (1 - lr weight_decay), torch.optim.AdamW leaves it at
//
//   D(s) w - m * sum over t of a_t / (sqrt(v) + e_t),   a_t = D(t) lr_t q_t rho^i / (1 - beta1^t).
//
// a_t and e_t do not depend on the row. The steps are cut into groups in which e_t varies little
// about a middle E, and 1 / (sqrt(v) + e_t) is replaced by the first kTerms = 8 terms of its
// Taylor series in e_t - E, which is a polynomial in 1 / (sqrt(v) + E) whose coefficients are sums
// over the group: exact in learning rates, bias corrections and decays. The remainder of a step is
// ((e_t - E) / (sqrt(v) + E))^8 of what the step moves, whatever v and eps are; groups are as wide
// as keeps it below 2^-20 / rho^(first i of the group - 1). Steps with rho^(i - 1) <= 2^-20 are
// left out. Together, with U = |m| / (1 - beta1^s) / (sqrt(v) / q_s + eps), the step that the row
// would have made at s in units of the learning rate, the row falls short of the exact sum by
//
//   at most  kMissedError / ln(1 / rho) * (largest lr_t) * q_n / q_s * U,   kMissedError = 15 2^-20
//
// (0.0002 of one step for betas 0.9, 0.95) and float32's rounding.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace memlayers::ops {

inline constexpr double kMissedError = 15.0 / (1 << 20);

// Owned by one thread; of() may be called from several while none of the others is.
class MissedSteps {
 public:
  // More rows' ages than these are not told apart: once so many steps are kept, the caller brings
  // all rows up to date and calls reset(). Some 8 MB for the usual betas.
  static constexpr std::int64_t kMostSteps = 1 << 14;

  // Throws ValueError for beta1 > 0.995 sqrt(beta2), where the sum has thousands of terms (from
  // sqrt(beta2) on it has no limit), and for eps < 1e-30.
  MissedSteps(double beta1, double beta2, double eps);

  // All rows are current to `step`: forgets the steps before.
  void reset(std::int64_t step);
  // Throws ValueError unless lr * weight_decay < 1.
  static void check(double lr, double weight_decay);
  // The next step was made, with these, which hold.
  void add(double lr, double weight_decay);

  std::int64_t first() const { return first_; }  // no row is older
  std::int64_t last() const { return first_ + static_cast<std::int64_t>(history_.size()); }
  // Learning rate and weight decay of steps first() + 1 .. last(): reset(first()) and add() of
  // these gives the same bits again.
  const std::vector<std::pair<double, double>>& history() const { return history_; }

  // For a row that is current to `step` in [0, last()], one before first() counting as first().
  // Points into this; valid until the next add() or reset(). rounding_key is left 0.
  kernels::CatchUpStep of(std::int64_t step) const;
  // The product of 1 - lr * weight_decay since `step`, for a row without momentum.
  float decay_since(std::int64_t step) const;

 private:
  struct Start;  // the sums for rows that are current to one step
  double root_correction(std::int64_t step);
  void open_group(Start& start, std::int64_t begin);
  void add_term(Start& start, std::int64_t step);

  double beta1_, beta2_, eps_, rho_;
  std::int64_t window_;  // steps after which what is left of a row's momentum is left out
  std::vector<double> beta1_power_, root_growth_, root_decay_;  // beta1^i, r^-i, r^i; i <= window_

  std::int64_t first_ = 0;
  std::vector<std::pair<double, double>> history_;
  std::vector<double> log_decay_;         // [history + 1]: of the product since first_
  std::vector<float> m_decay_, v_decay_;  // [history + 1]: beta1^n and beta2^n
  std::vector<double> correction_;        // q_t of t = first_, first_ + 1, ...

  struct Start {
    std::vector<kernels::CatchUpStep::Group> groups;
    std::int64_t begin = 1, end = 0;  // the last group holds i in [begin, end)
    double correction = 1;            // q of its first step
    double scale = 1;                 // its first e_t divided by E
    double sums[kernels::CatchUpStep::kTerms] = {};
  };
  std::vector<Start> starts_;  // [history]: of rows that are current to first_ + index
};

}  // namespace memlayers::ops

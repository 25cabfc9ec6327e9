// SPDX-License-Identifier: Apache-2.0
#include "ops/update/missed_steps.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace memlayers::ops {
namespace {

constexpr double kLeftOut = 1.0 / (1 << 20);
constexpr int kTerms = kernels::CatchUpStep::kTerms;

}  // namespace

MissedSteps::MissedSteps(double beta1, double beta2, double eps)
    : beta1_(beta1), beta2_(beta2), eps_(eps), rho_(beta1 / std::sqrt(beta2)) {
  TORCH_CHECK_VALUE(beta1 >= 0 && beta2 > 0 && beta2 < 1 && rho_ <= 0.995,
                    "dense AdamW: expected beta1 in [0, 0.995 sqrt(beta2)] and beta2 in (0, 1), "
                    "for what missed steps add up to has a limit only then, got beta1 ",
                    beta1, " and beta2 ", beta2);
  TORCH_CHECK_VALUE(eps >= 1e-30, "dense AdamW: expected eps of at least 1e-30, got ", eps);
  window_ =
      rho_ == 0 ? 0 : static_cast<std::int64_t>(std::ceil(std::log(kLeftOut) / std::log(rho_)));
  for (std::int64_t i = 0; i <= window_; ++i) {
    const auto power = static_cast<double>(i);
    beta1_power_.push_back(std::pow(beta1, power));
    root_growth_.push_back(std::pow(beta2, -power / 2));
    root_decay_.push_back(std::pow(beta2, power / 2));
  }
  reset(0);
}

void MissedSteps::reset(std::int64_t step) {
  first_ = step;
  history_.clear();
  starts_.clear();
  correction_.clear();
  log_decay_.assign(1, 0.0);
  m_decay_.assign(1, 1.0F);
  v_decay_.assign(1, 1.0F);
}

double MissedSteps::root_correction(std::int64_t step) {
  while (first_ + static_cast<std::int64_t>(correction_.size()) <= step) {
    const auto t = static_cast<double>(first_ + static_cast<std::int64_t>(correction_.size()));
    correction_.push_back(std::sqrt(-std::expm1(t * std::log(beta2_))));
  }
  return correction_[step - first_];
}

// As wide as keeps the remainder: |e_t - E| <= h E with h^8 <= 2^-20 / rho^(begin - 1), where E is
// the middle of the first and the last e_t, so that their ratio is at most (1 + h) / (1 - h).
void MissedSteps::open_group(Start& start, std::int64_t begin) {
  const std::int64_t step = first_ + (&start - starts_.data());
  const double h = std::pow(std::min(1.0, kLeftOut / std::pow(rho_, begin - 1)), 1.0 / kTerms);
  const double most = (1 + h) / (1 - h);
  start.begin = begin;
  start.correction = root_correction(step + begin);
  double ratio = 1;
  for (start.end = begin + 1; start.end <= window_; ++start.end) {
    const double wider =
        root_correction(step + start.end) / start.correction * root_growth_[start.end - begin];
    if (wider > most) break;
    ratio = wider;
  }
  start.scale = 2 / (1 + ratio);
  std::fill(std::begin(start.sums), std::end(start.sums), 0.0);
  kernels::CatchUpStep::Group group{};
  group.inverse_eps =
      static_cast<float>(root_decay_[begin] / (eps_ * start.correction) * start.scale);
  start.groups.push_back(group);
}

// With x = e_t / E the step moves the row by m times (a_t / E) / (sqrt(v) / E + x), and a_t / E is
// D(t) beta1^i lr_t / (1 - beta1^t) * x / eps: no power in it can overflow.
void MissedSteps::add_term(Start& start, std::int64_t step) {
  const std::int64_t current = first_ + (&start - starts_.data()), i = step - current;
  if (i > window_) return;
  if (i >= start.end) open_group(start, i);
  const double x =
      root_correction(step) / start.correction * root_growth_[i - start.begin] * start.scale;
  const double undecayed = std::exp(log_decay_[current - first_] - log_decay_[step - first_]);
  const double lr = history_.back().first;
  double term = undecayed * beta1_power_[i] * lr /
                -std::expm1(static_cast<double>(step) * std::log(beta1_)) * x / eps_;
  kernels::CatchUpStep::Group& group = start.groups.back();
  for (int k = 0; k < kTerms; ++k) {
    start.sums[k] += term;
    group.c[k] = static_cast<float>(start.sums[k]);
    term *= 1 - x;
  }
}

void MissedSteps::check(double lr, double weight_decay) {
  TORCH_CHECK_VALUE(lr * weight_decay < 1, "dense AdamW: expected lr * weight_decay below 1, got ",
                    lr, " * ", weight_decay);
}

void MissedSteps::add(double lr, double weight_decay) {
  history_.emplace_back(lr, weight_decay);
  log_decay_.push_back(log_decay_.back() + std::log1p(-lr * weight_decay));
  const auto n = static_cast<double>(history_.size());
  m_decay_.push_back(static_cast<float>(std::pow(beta1_, n)));
  v_decay_.push_back(static_cast<float>(std::pow(beta2_, n)));
  starts_.emplace_back();
  const auto count = static_cast<std::int64_t>(starts_.size());
  for (std::int64_t s = std::max<std::int64_t>(0, count - window_); s < count; ++s) {
    add_term(starts_[s], last());
  }
}

float MissedSteps::decay_since(std::int64_t step) const {
  return static_cast<float>(
      std::exp(log_decay_.back() - log_decay_[std::max(step, first_) - first_]));
}

kernels::CatchUpStep MissedSteps::of(std::int64_t step) const {
  const std::int64_t start = std::max(step, first_) - first_;
  const std::int64_t missed = last() - first_ - start;
  kernels::CatchUpStep result{.groups = nullptr,
                              .num_groups = 0,
                              .decay = decay_since(step),
                              .m_decay = m_decay_[missed],
                              .v_decay = v_decay_[missed],
                              .rounding_key = 0};
  if (missed > 0) {
    result.groups = starts_[start].groups.data();
    result.num_groups = static_cast<std::int64_t>(starts_[start].groups.size());
  }
  return result;
}

}  // namespace memlayers::ops

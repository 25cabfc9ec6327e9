// SPDX-License-Identifier: Apache-2.0
#include "bench/draw.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

namespace memlayers::bench {
namespace {

constexpr std::int64_t kVocabulary = 8192;

}  // namespace

// Ranks by rejection-inversion [Hörmann and Derflinger, "Rejection-inversion to generate variates
// from monotone discrete distributions", 1996]: no table of probabilities, whatever the count.
IndexDraw::IndexDraw(std::int64_t count, Distribution distribution, std::uint64_t seed)
    : count_(count), distribution_(distribution), generator_(seed) {
  if (!distribution_.zipf_exponent) return;
  number_of_rank_ =
      torch::randperm(count, at::make_generator<at::CPUGeneratorImpl>(seed), torch::kLong);
  const double s = *distribution_.zipf_exponent;
  from_ = integral(1.5) - 1;
  to_ = integral(static_cast<double>(count) + 0.5);
  accepted_below_ = 2 - inverse_integral(integral(2.5) - std::pow(2.0, -s));
}

double IndexDraw::integral(double x) const {
  const double s = *distribution_.zipf_exponent;
  return s == 1 ? std::log(x) : (std::pow(x, 1 - s) - 1) / (1 - s);
}

double IndexDraw::inverse_integral(double y) const {
  const double s = *distribution_.zipf_exponent;
  return s == 1 ? std::exp(y) : std::pow(1 + y * (1 - s), 1 / (1 - s));
}

std::int64_t IndexDraw::draw_rank() {
  std::uniform_real_distribution<double> uniform(from_, to_);
  for (;;) {
    const double u = uniform(generator_), x = inverse_integral(u);
    const double rank = std::clamp(std::round(x), 1.0, static_cast<double>(count_));
    if (rank - x <= accepted_below_ ||
        u >= integral(rank + 0.5) - std::pow(rank, -*distribution_.zipf_exponent)) {
      return static_cast<std::int64_t>(rank);
    }
  }
}

at::Tensor IndexDraw::draw(at::IntArrayRef shape) {
  at::Tensor numbers = torch::empty(shape, torch::kLong);
  auto* number = numbers.mutable_data_ptr<std::int64_t>();
  std::uniform_int_distribution<std::int64_t> uniform(0, count_ - 1);
  const bool is_zipf = distribution_.zipf_exponent.has_value();
  const std::int64_t* of_rank = is_zipf ? number_of_rank_.const_data_ptr<std::int64_t>() : nullptr;
  for (std::int64_t i = 0; i < numbers.numel(); ++i) {
    number[i] = is_zipf ? of_rank[draw_rank() - 1] : uniform(generator_);
  }
  return numbers;
}

VectorDraw::VectorDraw(std::int64_t width, Distribution distribution, std::uint64_t seed)
    : width_(width), generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {
  if (!distribution.zipf_exponent) return;
  words_.emplace(kVocabulary, distribution, seed);
  vocabulary_ = torch::randn({kVocabulary, width}, generator_, torch::kFloat);
}

at::Tensor VectorDraw::draw(std::int64_t tokens) {
  return words_ ? vocabulary_.index_select(0, words_->draw({tokens}))
                : torch::randn({tokens, width_}, generator_, torch::kFloat);
}

}  // namespace memlayers::bench

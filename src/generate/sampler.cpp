// SPDX-License-Identifier: Apache-2.0
#include "generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace memlayers::generate {
namespace {

std::uint64_t mix(std::uint64_t x) {  // the finalizer of SplitMix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Uniform in [0, 1).
double uniform(std::uint64_t seed, std::int64_t position) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  std::uint64_t state = mix(seed + kGolden);
  state = mix(state ^ kGolden);
  state = mix(state ^ (static_cast<std::uint64_t>(position) + kGolden));
  return static_cast<double>(state >> 11) * 0x1p-53;
}

// The tokens in the order of their likelihood, sorted as far as they are asked for: of a large
// vocabulary mostly the first few.
class Ranking {
 public:
  Ranking(std::span<const float> logits, double temperature)
      : logits_(logits), order_(logits.size()), weights_(logits.size()) {
    std::iota(order_.begin(), order_.end(), 0);
    const double highest = *std::ranges::max_element(logits);
    for (std::size_t token = 0; token < logits.size(); ++token) {
      weights_[token] = std::exp((logits[token] - highest) / temperature);
    }
  }

  std::size_t size() const { return order_.size(); }
  std::int32_t token(std::size_t rank) {
    if (rank >= sorted_) sort_to(std::max(rank + 1, 4 * sorted_));
    return order_[rank];
  }
  double weight(std::size_t rank) { return weights_[static_cast<std::size_t>(token(rank))]; }
  // Of the first `count`; of all in any order.
  double total(std::size_t count) {
    if (count == size()) return std::accumulate(weights_.begin(), weights_.end(), 0.0);
    double sum = 0;
    for (std::size_t rank = 0; rank < count; ++rank) sum += weight(rank);
    return sum;
  }
  std::size_t count_from(double least) const {
    return static_cast<std::size_t>(
        std::ranges::count_if(weights_, [&](double weight) { return weight >= least; }));
  }

 private:
  void sort_to(std::size_t count) {
    constexpr std::size_t kFirst = 64;
    count = std::min(size(), std::max(count, kFirst));
    const auto begin = order_.begin() + static_cast<std::ptrdiff_t>(sorted_);
    const auto end = order_.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(begin, end, order_.end(), [&](std::int32_t a, std::int32_t b) {
      const float x = logits_[static_cast<std::size_t>(a)],
                  y = logits_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    sorted_ = count;
  }

  std::span<const float> logits_;
  std::vector<std::int32_t> order_;
  std::vector<double> weights_;  // by token
  std::size_t sorted_ = 0;
};

}  // namespace

bool changes_logits(const GenerateOptions& options) {
  return !options.logit_bias.empty() || options.repetition_penalty != 1 ||
         options.presence_penalty != 0 || options.frequency_penalty != 0;
}

void SeenTokens::change(const GenerateOptions& options, std::span<float> logits) const {
  const auto logit = [&](std::int32_t token) -> float& {
    return logits[static_cast<std::size_t>(token)];
  };
  const auto has = [&](std::int32_t token) {
    return token < static_cast<std::int64_t>(logits.size());
  };
  for (const auto& [token, bias] : options.logit_bias) {
    if (has(token)) logit(token) += static_cast<float>(bias);
  }
  if (options.repetition_penalty != 1) {
    const auto penalty = static_cast<float>(options.repetition_penalty);
    const auto repeat = [&](std::int32_t token) {
      if (!has(token)) return;
      float& x = logit(token);
      x = x > 0 ? x / penalty : x * penalty;
    };
    for (const std::int32_t token : prompt_) repeat(token);
    for (const auto& [token, count] : answer_) {
      if (!prompt_.contains(token)) repeat(token);
    }
  }
  for (const auto& [token, count] : answer_) {
    if (!has(token)) continue;
    logit(token) -= static_cast<float>(options.presence_penalty +
                                       static_cast<double>(count) * options.frequency_penalty);
  }
}

std::int32_t sample(std::span<const float> logits, const GenerateOptions& options,
                    std::int64_t position) {
  if (options.temperature == 0 || options.top_k == 1) {
    return static_cast<std::int32_t>(std::ranges::max_element(logits) - logits.begin());
  }
  Ranking ranking(logits, options.temperature);
  std::size_t kept = ranking.size();
  if (options.top_k) kept = std::min(kept, static_cast<std::size_t>(*options.top_k));
  if (options.top_p && *options.top_p < 1) {
    // The token that crosses top_p still belongs.
    const double enough = *options.top_p * ranking.total(kept);
    double sum = 0;
    std::size_t count = 0;
    while (count < kept && sum < enough) sum += ranking.weight(count++);
    kept = std::max<std::size_t>(1, count);
  }
  // The greatest weight is 1.
  if (options.min_p) kept = std::min(kept, ranking.count_from(*options.min_p));
  double rest = uniform(options.seed, position) * ranking.total(kept);
  for (std::size_t rank = 0; rank + 1 < kept; ++rank) {
    rest -= ranking.weight(rank);
    if (rest < 0) return ranking.token(rank);
  }
  return ranking.token(kept - 1);
}

}  // namespace memlayers::generate

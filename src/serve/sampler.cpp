// SPDX-License-Identifier: Apache-2.0
#include "serve/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "memlayers/error.h"

namespace memlayers {

void GenerateOptions::validate() const {
  const auto check = [](bool is_right, const char* field, const char* wanted, const auto& got) {
    if (!is_right) {
      throw Error(std::string(field) + ": expected " + wanted + ", got " + std::to_string(got));
    }
  };
  check(max_tokens >= 0, "max_tokens", "0 or more", max_tokens);
  check(temperature >= 0 && std::isfinite(temperature), "temperature", "a number >= 0",
        temperature);
  check(!top_k || *top_k >= 1, "top_k", "at least 1", top_k.value_or(0));
  check(!top_p || (*top_p > 0 && *top_p <= 1), "top_p", "a number in (0, 1]", top_p.value_or(0));
  if (std::find(stop.begin(), stop.end(), "") != stop.end()) {
    throw Error("stop: expected text, got \"\"");
  }
}

namespace serve {
namespace {

std::uint64_t mix(std::uint64_t x) {  // the finalizer of SplitMix64
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Uniform in [0, 1).
double uniform(std::uint64_t seed, std::int64_t row, std::int64_t position) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  std::uint64_t state = mix(seed + kGolden);
  state = mix(state ^ (static_cast<std::uint64_t>(row) + kGolden));
  state = mix(state ^ (static_cast<std::uint64_t>(position) + kGolden));
  return static_cast<double>(state >> 11) * 0x1p-53;
}

}  // namespace

std::int32_t sample(std::span<const float> logits, const GenerateOptions& options, std::int64_t row,
                    std::int64_t position) {
  if (options.temperature == 0 || options.top_k == 1) {
    return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                     logits.begin());
  }
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::size_t kept = order.size();
  if (options.top_k) kept = std::min(kept, static_cast<std::size_t>(*options.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(),
                    more_likely);
  std::vector<double> weights(kept);
  const double highest = logits[order[0]];
  for (std::size_t i = 0; i < kept; ++i) {
    weights[i] = std::exp((logits[order[i]] - highest) / options.temperature);
  }
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p) {
    // The token that crosses top_p still belongs.
    double sum = 0;
    std::size_t count = 0;
    while (count < kept && sum < *options.top_p * total) sum += weights[count++];
    kept = std::max<std::size_t>(1, count);
    total =
        std::accumulate(weights.begin(), weights.begin() + static_cast<std::ptrdiff_t>(kept), 0.0);
  }
  double rest = uniform(options.seed, row, position) * total;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    rest -= weights[i];
    if (rest < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace serve
}  // namespace memlayers

// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/rope_factors.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "memlayers/error.h"

namespace memlayers::io::gguf {
namespace {

// The converter computes in float32, and where the factor is 32 what it rounds is a 32nd of what
// comes of it.
constexpr double kTolerance = 2e-5;
constexpr double kUsualLow = 1, kUsualHigh = 4;
constexpr std::int64_t kUsualContext = 8192;

double wave_length(double theta, std::size_t i, std::size_t count) {
  return 2 * std::numbers::pi *
         std::pow(theta, static_cast<double>(i) / static_cast<double>(count));
}

bool gives(const RopeConfig& rope, std::span<const float> factors) {
  const std::vector<float> made = rope_factors(rope, 2 * static_cast<std::int64_t>(factors.size()));
  return std::ranges::equal(made, factors, [](float one, float other) {
    return std::abs(one - other) <= kTolerance * std::abs(other);
  });
}

// 1 / factor is a line in 1 / wave length between two limits. Through two points on it (the
// outermost) goes one line; with less than two the limits are taken to be as far apart as usual.
RopeConfig fitted(std::span<const float> factors, RopeConfig rope) {
  std::vector<std::size_t> between;
  std::size_t ones = 0;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    if (factors[i] == 1) ++ones;
    if (factors[i] > 1 && factors[i] < rope.factor) between.push_back(i);
  }
  const auto wave = [&](std::size_t i) { return wave_length(rope.theta, i, factors.size()); };
  const auto smooth = [&](std::size_t i) {  // 0 where the whole factor holds, 1 where none does
    return (1 / double{factors[i]} - 1 / rope.factor) / (1 - 1 / rope.factor);
  };
  if (between.size() < 2) {
    const double context =
        between.empty() ? std::sqrt(wave(ones) * (ones == 0 ? 1 : kUsualHigh * wave(ones - 1)))
                        : wave(between.front()) *
                              (kUsualLow + (kUsualHigh - kUsualLow) * smooth(between.front()));
    if (context >= 1 && context < 0x1p31) rope.original_context = std::llround(context);
    return rope;
  }
  const auto turns = [&](std::size_t i) {  // of a wave in the original context
    return static_cast<double>(rope.original_context) / wave(i);
  };
  const std::size_t first = between.front(), last = between.back();
  const double slope = (smooth(first) - smooth(last)) / (turns(first) - turns(last));
  rope.low_freq_factor = turns(last) - smooth(last) / slope;
  rope.high_freq_factor = rope.low_freq_factor + 1 / slope;
  return rope;
}

bool is_possible(const RopeConfig& rope) {
  return std::isfinite(rope.high_freq_factor) && rope.low_freq_factor > 0 &&
         rope.high_freq_factor > rope.low_freq_factor;
}

}  // namespace

std::vector<float> rope_factors(const RopeConfig& rope, std::int64_t head_dim) {
  const auto count = static_cast<std::size_t>(head_dim / 2);
  const auto context = static_cast<double>(rope.original_context);
  std::vector<float> factors;
  for (std::size_t i = 0; i < count; ++i) {
    const double turns = context / wave_length(rope.theta, i, count);
    const double smooth =
        (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    const double share = std::clamp(smooth, 0.0, 1.0);
    factors.push_back(static_cast<float>(1 / ((1 - share) / rope.factor + share)));
  }
  return factors;
}

void read_rope_factors(std::span<const float> factors, const std::string& where, RopeConfig& rope) {
  const bool are_numbers = std::ranges::all_of(
      factors, [](float factor) { return std::isfinite(factor) && factor >= 1; });
  if (are_numbers) {
    if (std::ranges::all_of(factors, [](float factor) { return factor == 1; })) return;
    RopeConfig usual = rope;
    usual.type = "llama3";
    usual.factor = double{*std::ranges::max_element(factors)};
    usual.low_freq_factor = kUsualLow;
    usual.high_freq_factor = kUsualHigh;
    RopeConfig said = usual;  // where the file names the original context
    usual.original_context = kUsualContext;
    for (const RopeConfig& candidate : {usual, said, fitted(factors, usual)}) {
      if (!is_possible(candidate) || !gives(candidate, factors)) continue;
      rope = candidate;
      return;
    }
  }
  throw Error(where +
              ": expected factors of LLaMA 3's scaling, from 1 to one factor over "
              "frequencies between two limits, got others");
}

}  // namespace memlayers::io::gguf

// SPDX-License-Identifier: Apache-2.0
#include "generate/logprobs.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "memlayers/error.h"

namespace memlayers::generate {

TokenLogprobs logprobs_of(std::span<const float> logits, std::int32_t token, std::int64_t count) {
  const double highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  const double total = highest + std::log(sum);
  const auto logprob = [&](std::int32_t of) {
    return static_cast<double>(logits[static_cast<std::size_t>(of)]) - total;
  };
  TokenLogprobs result{.token = token, .logprob = logprob(token)};
  std::vector<std::int32_t> order(count == 0 ? 0 : logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto wanted = std::min(count, static_cast<std::int64_t>(order.size()));
  std::partial_sort(order.begin(), order.begin() + wanted, order.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const float x = logits[static_cast<std::size_t>(a)];
                      const float y = logits[static_cast<std::size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  order.resize(static_cast<std::size_t>(wanted));
  for (const std::int32_t of : order) result.top.emplace_back(of, logprob(of));
  return result;
}

void check_logits(std::span<const float> logits) {
  float wrong = 0;  // NaN where one is not finite
  for (const float logit : logits) wrong += logit - logit;
  if (wrong == 0) return;
  const auto first =
      std::ranges::find_if(logits, [](float logit) { return !std::isfinite(logit); });
  throw Error("logits: expected finite numbers, got " + std::to_string(*first) + " for token " +
              std::to_string(first - logits.begin()) +
              "; the model's weights or rows, or the sums of them, are no numbers any more");
}

}  // namespace memlayers::generate

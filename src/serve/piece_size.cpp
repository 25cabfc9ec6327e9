// SPDX-License-Identifier: Apache-2.0
#include "serve/piece_size.h"

#include <algorithm>

namespace memlayers::serve {

// Of as many answers or, where no step had them, of the nearest number that one had.
std::optional<double> PieceSize::alone(std::int64_t answers) const {
  if (alone_.empty()) return std::nullopt;
  const auto above = alone_.lower_bound(answers);
  if (above == alone_.begin()) return above->second;
  const auto below = std::prev(above);
  if (above == alone_.end() || answers - below->first < above->first - answers) {
    return below->second;
  }
  return above->second;
}

std::int64_t PieceSize::beside(std::int64_t answers) const {
  if (answers == 0 || slowdown_ == 0) return most_;
  const std::optional<double> step = alone(answers);
  if (!step || of_token_ == 0) return std::min(kUnknown, most_);
  const double tokens = (slowdown_ - 1) * *step / of_token_;
  return std::clamp(static_cast<std::int64_t>(std::min(tokens, 1e6)), std::min(kLeast, most_),
                    most_);
}

void PieceSize::took(double seconds, std::int64_t of_prompts, std::int64_t answers) {
  constexpr double kOfNew = 0.25;
  if (answers == 0) return;  // tokens of prompts alone cost less: larger pieces
  if (of_prompts == 0) {
    const auto [found, is_new] = alone_.emplace(answers, seconds);
    if (!is_new) found->second += kOfNew * (seconds - found->second);
    return;
  }
  const std::optional<double> step = alone(answers);
  if (!step) return;
  const double now = std::max(seconds - *step, 0.0) / static_cast<double>(of_prompts);
  // What is dearer than it was counts at once, what is cheaper slowly.
  of_token_ = now > of_token_ ? now : of_token_ + kOfNew * (now - of_token_);
}

}  // namespace memlayers::serve

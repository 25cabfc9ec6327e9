// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace memlayers::serve {

// How many tokens of prompts a step takes in beside the answers of others, so that it lasts at most
// about `slowdown` times a step without: as many as its time allows at the cost that a token of a
// prompt had of late, which grows with what it stands behind.
class PieceSize {
 public:
  static constexpr std::int64_t kLeast = 16, kUnknown = 32;

  // `most` tokens, also where nobody waits; slowdown 0: always so many.
  PieceSize(std::int64_t most, double slowdown) : most_(most), slowdown_(slowdown) {}

  std::int64_t beside(std::int64_t answers) const;
  // What a step took that had so many tokens of prompts and answers.
  void took(double seconds, std::int64_t of_prompts, std::int64_t answers);

 private:
  std::optional<double> alone(std::int64_t answers) const;

  std::int64_t most_;
  double slowdown_;
  std::map<std::int64_t, double> alone_;  // seconds of a step of so many answers and no prompt
  double of_token_ = 0;                   // seconds of a token of a prompt; 0: not known
};

}  // namespace memlayers::serve

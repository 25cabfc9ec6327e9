// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "memlayers/decoder.h"

namespace memlayers::generate {

// The tokens of a sequence, as penalties count them.
class SeenTokens {
 public:
  explicit SeenTokens(std::span<const std::int32_t> prompt)
      : prompt_(prompt.begin(), prompt.end()) {}
  void add(std::int32_t token) { ++answer_[token]; }

  // Adds logit_bias and takes the penalties off logits (vocab_size); each by itself.
  void change(const GenerateOptions& options, std::span<float> logits) const;

 private:
  std::unordered_set<std::int32_t> prompt_;
  std::unordered_map<std::int32_t, std::int64_t> answer_;
};

// Whether SeenTokens::change() would change anything.
bool changes_logits(const GenerateOptions& options);

// Token number `position` of a sequence from its logits (vocab_size): the most likely one at
// temperature 0 (the lowest id of equals), else drawn after temperature, top-k, top-p and min-p, in
// this order, as Hugging Face's generate does. The draw depends on (seed, position) alone.
std::int32_t sample(std::span<const float> logits, const GenerateOptions& options,
                    std::int64_t position);

}  // namespace memlayers::generate

// SPDX-License-Identifier: Apache-2.0
// How likely a model finds answers: one forward pass for several rows of like lengths.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "memlayers/generator.h"
#include "train/fact_row.h"

namespace memlayers::train {

struct AnswerScore {
  double nll = 0;  // negative log-likelihood of the tokens from answer_from on, nats
  std::int64_t tokens = 0;
  bool is_best = true;                // each of them is the most likely one at its place
  std::vector<float> token_nll = {};  // of each
};

// Of each row, in the order given; none may be longer than the context. `progress(rows)` is told
// after each batch of about `batch_tokens` tokens.
std::vector<AnswerScore> score_answers(Generator& generator, const std::vector<FactRow>& rows,
                                       std::int64_t batch_tokens,
                                       const std::function<void(std::int64_t)>& progress = {});

}  // namespace memlayers::train

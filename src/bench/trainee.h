// SPDX-License-Identifier: Apache-2.0
// A decoder with its optimizers, trained on token ids that carry no meaning.
#pragma once

#include <cstdint>
#include <memory>

#include "bench/bench.h"
#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "train/gradient_sum.h"
#include "train/processes.h"
#include "train/training_step.h"

namespace memlayers::bench {

class Trainee {
 public:
  // All `processes` make one and step together.
  Trainee(const Case& c, const ModelConfig& model,
          train::Processes processes = train::Processes::alone());

  double seconds_of_step(text::Batch batch);
  double flops_a_token(std::int64_t context) const {
    return count_flops(model_->config(), context).total();
  }
  std::int64_t dense_parameters() const;  // numbers, the pool's rows not among them

  // `count` steps of so many sequences, a token of each in one, as a server that has opened the
  // model decodes them. Trains no more.
  Times decode(IndexDraw& words, std::int64_t count, std::int64_t sequences = 1);
  Llama& model() { return model_; }

 private:
  train::Processes processes_;
  Llama model_;
  DenseAdamW dense_;
  std::unique_ptr<RowOptimizer> rows_;  // null for a model without a pool
  train::StepRates rates_{};
  bool is_opened_ = false;  // its weights lie in huge pages
  train::GradientSum gradients_;
};

// `tokens` or a few less in sequences of `context` or less.
text::Batch draw_batch(IndexDraw& words, std::int64_t tokens, std::int64_t context);

}  // namespace memlayers::bench

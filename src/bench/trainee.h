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
  // `processes`, where they are several, all make one and step together.
  Trainee(const Case& c, const ModelConfig& model, const train::Processes* processes = nullptr);

  double seconds_of_step(text::Batch batch);
  double flops_a_token(std::int64_t context) const {
    return count_flops(model_->config(), context).total();
  }
  std::int64_t dense_parameters() const;  // numbers, the pool's rows not among them

  // One token after the other, as a server that has opened the model decodes them. Trains no more.
  Times decode(IndexDraw& words, std::int64_t count);
  // What each must read: weights (sub-keys in 8 bits; of the embeddings, where they are not the
  // output's too, one row) and rows. Neither caches of attention nor rows read twice are counted.
  double decode_bytes() const;

 private:
  Llama model_;
  DenseAdamW dense_;
  std::unique_ptr<RowAdamW> rows_;  // null for a model without a pool
  train::StepRates rates_{};
  std::unique_ptr<train::GradientSum> gradients_;  // null where a process is alone
  std::unique_ptr<train::Together> together_;
};

// `tokens` or a few less in sequences of `context` or less.
text::Batch draw_batch(IndexDraw& words, std::int64_t tokens, std::int64_t context);

}  // namespace memlayers::bench

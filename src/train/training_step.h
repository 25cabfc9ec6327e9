// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "memlayers/llama.h"
#include "memlayers/optimizer.h"
#include "text/dataset.h"
#include "train/gradient_sum.h"
#include "train/processes.h"

namespace memlayers::train {

struct StepRates {
  double lr, value_lr;
  std::optional<double> clip, value_clip;
  double balance = 0;  // weight of LlamaImpl::take_balance()
};

struct StepOutcome {
  // Mean over the target tokens of all micro-batches; NaN where there are none.
  double loss = 0;
  double grad_norm = 0, value_grad_norm = 0;
  std::int64_t touched_rows = 0;
  std::int64_t tokens = 0;
  bool bad =
      false;  // loss or gradient not finite: weights, rows and optimizer states are as before
};

// Who makes a step together, be it one process alone.
struct Together {
  const Processes& processes;
  GradientSum& gradients;
};

// One optimizer step over the micro-batches. The loss is the mean over all their target tokens, so
// that how they were cut makes no difference but rounding. `rows` is null without a pool. Several
// processes give the same batches, of which each works on its rows, and get the same outcome.
StepOutcome train_step(Llama& model, DenseAdamW& dense, RowOptimizer* rows,
                       std::vector<text::Batch>& batches, const StepRates& rates,
                       const Together& together);
// The same by this process alone.
StepOutcome train_step(Llama& model, DenseAdamW& dense, RowOptimizer* rows,
                       std::vector<text::Batch>& batches, const StepRates& rates);

// Mean loss over all target tokens of one pass over the stream, from its beginning; no gradients.
// Throws Error where it holds none. All processes go through it together, each on its rows.
double validation_loss(Llama& model, text::BatchStream& stream, const Processes& processes);

}  // namespace memlayers::train

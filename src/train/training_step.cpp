// SPDX-License-Identifier: Apache-2.0
#include "train/training_step.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "dist/collectives.h"
#include "train/pairwise_gradients.h"

namespace memlayers::train {
namespace {

// Views of the batch's ids, without a copy; valid as long as the batch.
at::Tensor view(std::vector<std::int64_t>& ids, const text::Batch& batch) {
  return torch::from_blob(ids.data(), {batch.rows, batch.length}, torch::kLong);
}

at::Tensor batch_loss(Llama& model, text::Batch& batch) {
  return answer_loss(model, model->hidden_states(view(batch.input, batch)),
                     view(batch.target, batch));
}

}  // namespace

StepOutcome train_step(Llama& model, DenseAdamW& dense, RowAdamW* rows,
                       std::vector<text::Batch>& batches, const StepRates& rates,
                       const Together* together) {
  StepOutcome outcome;
  std::int64_t targets = 0;
  for (const text::Batch& batch : batches) {
    outcome.tokens += batch.tokens;
    targets += batch.target_tokens;
  }
  dense.zero_grad();
  if (rows != nullptr) model->pool()->clear_gradient();
  const auto give_up = [&] {
    dense.zero_grad();
    if (rows != nullptr) model->pool()->clear_gradient();
    outcome.bad = true;
    return outcome;
  };

  std::vector<Processes::Share> own;
  if (together != nullptr) own = together->processes.shares_of(batches);
  const std::size_t count = together != nullptr ? own.size() : batches.size();
  const auto has_targets = [&](std::size_t i) {
    return together != nullptr ? own[i].has_targets : batches[i].target_tokens > 0;
  };
  std::size_t end = count;  // behind the last with a loss
  while (end > 0 && !has_targets(end - 1)) --end;
  PairwiseGradients gradients(model->dense_parameters());
  std::vector<double> losses(std::max<std::size_t>(1, count));
  for (std::size_t i = 0; i < end; ++i) {
    gradients.next();
    if (!has_targets(i)) continue;
    text::Batch& batch = together != nullptr ? own[i].batch : batches[i];
    const double share = static_cast<double>(batch.target_tokens) / static_cast<double>(targets);
    at::Tensor loss = batch_loss(model, batch);
    if (batches.size() > 1 || together != nullptr) loss = loss * share;
    losses[i] = loss.item<double>();
    // Several processes go on, for the others count on it, and give up together.
    if (!std::isfinite(losses[i]) && together == nullptr) {
      outcome.loss = losses[i];
      return give_up();
    }
    if (together != nullptr && i + 1 == end) together->gradients.begin(gradients);
    loss.backward();
  }
  outcome.loss = dist::pairwise_sum(std::move(losses), std::plus<>());
  if (together == nullptr) {
    gradients.finish();
  } else if (end > 0) {
    together->gradients.finish();
    dist::sum_pairwise(together->processes.world(), {&outcome.loss, 1});
    if (!std::isfinite(outcome.loss)) return give_up();
  }

  outcome.grad_norm = dense.gradient_norm();
  if (!std::isfinite(outcome.grad_norm)) return give_up();
  if (rows != nullptr) {
    // First, for it leaves everything alone where the pool's gradient is not finite.
    const RowAdamW::StepResult result = rows->step(rates.value_lr, 1, rates.value_clip);
    outcome.value_grad_norm = result.gradient_norm;
    if (!std::isfinite(result.gradient_norm)) return give_up();
    outcome.touched_rows = result.touched_rows;
  }
  dense.step_with_norm(outcome.grad_norm, rates.lr, rates.clip);
  return outcome;
}

double validation_loss(Llama& model, text::BatchStream& stream, const Processes* processes) {
  const at::NoGradGuard no_grad;
  const bool was_training = model->is_training();
  model->eval();
  stream.seek({});
  double sum = 0;
  std::int64_t targets = 0;
  for (std::int64_t n = stream.batches_in_epoch(0); n > 0; --n) {
    text::Batch batch = stream.next();
    if (batch.target_tokens == 0) continue;
    if (processes != nullptr) batch = processes->share_of(batch);
    sum += batch_loss(model, batch).item<double>() * static_cast<double>(batch.target_tokens);
    targets += batch.target_tokens;
  }
  model->train(was_training);
  if (processes != nullptr) {
    double numbers[] = {sum, static_cast<double>(targets)};
    dist::sum_pairwise(processes->world(), numbers);
    sum = numbers[0];
    targets = static_cast<std::int64_t>(numbers[1]);
  }
  return targets == 0 ? 0 : sum / static_cast<double>(targets);
}

}  // namespace memlayers::train

// SPDX-License-Identifier: Apache-2.0
#include "train/training_step.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "dist/collectives.h"
#include "train/mean.h"
#include "train/pairwise_gradients.h"

namespace memlayers::train {
namespace {

// Views of the batch's ids, without a copy; valid as long as the batch.
at::Tensor view(std::vector<std::int64_t>& ids, const text::Batch& batch) {
  return torch::from_blob(ids.data(), {batch.rows, batch.length}, torch::kLong);
}

at::Tensor batch_loss(Llama& model, text::Batch& batch) {
  const at::Tensor begin =
      batch.document_begin.empty() ? at::Tensor() : view(batch.document_begin, batch);
  return answer_loss(model, model->hidden_states(view(batch.input, batch), begin),
                     view(batch.target, batch));
}

}  // namespace

StepOutcome train_step(Llama& model, DenseAdamW& dense, RowOptimizer* rows,
                       std::vector<text::Batch>& batches, const StepRates& rates,
                       const Together& together) {
  const Processes& processes = together.processes;
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

  std::vector<Processes::Share> own = processes.shares_of(batches);
  std::size_t end = own.size();  // behind the last with a loss
  while (end > 0 && !own[end - 1].has_targets) --end;
  PairwiseGradients gradients(model->dense_parameters());
  std::vector<double> losses(std::max<std::size_t>(1, own.size()));
  for (std::size_t i = 0; i < end; ++i) {
    gradients.next();
    if (!own[i].has_targets) continue;
    text::Batch& batch = own[i].batch;
    const double share = static_cast<double>(batch.target_tokens) / static_cast<double>(targets);
    at::Tensor loss = batch_loss(model, batch);
    if (share != 1) loss = loss * share;
    losses[i] = loss.item<double>();
    // Of the gradient alone: what is logged is the loss that is comparable.
    const at::Tensor balance = model->take_balance();
    if (balance.defined() && rates.balance > 0) loss = loss + balance * (rates.balance * share);
    if (i + 1 == end) together.gradients.begin(gradients);
    loss.backward();
  }
  outcome.loss = dist::pairwise_sum(std::move(losses), std::plus<>());
  if (end > 0) {
    together.gradients.finish();
    dist::sum_pairwise(processes.world(), {&outcome.loss, 1});
    if (!std::isfinite(outcome.loss)) return give_up();
  }

  outcome.grad_norm = dense.gradient_norm();
  if (!std::isfinite(outcome.grad_norm)) return give_up();
  if (rows != nullptr) {
    // First, for it leaves everything alone where the pool's gradient is not finite.
    const RowOptimizer::StepResult result = rows->step(rates.value_lr, 1, rates.value_clip);
    outcome.value_grad_norm = result.gradient_norm;
    if (!std::isfinite(result.gradient_norm)) return give_up();
    outcome.touched_rows = result.touched_rows;
  }
  dense.step_with_norm(outcome.grad_norm, rates.lr, rates.clip);
  if (targets == 0) outcome.loss = std::numeric_limits<double>::quiet_NaN();  // nothing was scored
  return outcome;
}

StepOutcome train_step(Llama& model, DenseAdamW& dense, RowOptimizer* rows,
                       std::vector<text::Batch>& batches, const StepRates& rates) {
  const Processes processes = Processes::alone();
  GradientSum gradients(processes.shared_world(), model->dense_parameters(), {});
  return train_step(model, dense, rows, batches, rates, {processes, gradients});
}

double validation_loss(Llama& model, text::BatchStream& stream, const Processes& processes) {
  const at::NoGradGuard no_grad;
  const bool was_training = model->is_training();
  model->eval();
  stream.seek({});
  Mean loss;
  for (std::int64_t n = stream.batches_in_epoch(0); n > 0; --n) {
    text::Batch batch = stream.next();
    if (batch.target_tokens == 0) continue;
    batch = processes.share_of(batch);
    loss.add(batch_loss(model, batch).item<double>(), static_cast<double>(batch.target_tokens));
  }
  model->train(was_training);
  double numbers[] = {loss.sum(), loss.weight()};
  dist::sum_pairwise(processes.world(), numbers);
  return Mean(numbers[0], numbers[1]).value("validation data", "token to predict");
}

}  // namespace memlayers::train

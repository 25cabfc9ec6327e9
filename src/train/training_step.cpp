// SPDX-License-Identifier: Apache-2.0
#include "train/training_step.h"

#include <torch/torch.h>

#include <cmath>

#include "dist/collectives.h"

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
  const text::Batch* last = nullptr;  // of those with a loss
  for (const text::Batch& batch : batches) {
    outcome.tokens += batch.tokens;
    targets += batch.target_tokens;
    if (batch.target_tokens > 0) last = &batch;
  }
  dense.zero_grad();
  if (rows != nullptr) model->pool()->clear_gradient();
  const auto give_up = [&] {
    dense.zero_grad();
    if (rows != nullptr) model->pool()->clear_gradient();
    outcome.bad = true;
    return outcome;
  };

  for (text::Batch& whole : batches) {
    if (whole.target_tokens == 0) continue;
    text::Batch own;
    if (together != nullptr) own = together->processes.share_of(whole);
    text::Batch& batch = together != nullptr ? own : whole;
    const double share = static_cast<double>(batch.target_tokens) / static_cast<double>(targets);
    at::Tensor loss = batch_loss(model, batch);
    if (batches.size() > 1 || together != nullptr) loss = loss * share;
    outcome.loss += loss.item<double>();
    // Several processes go on, for the others count on it, and give up together.
    if (!std::isfinite(outcome.loss) && together == nullptr) return give_up();
    if (together != nullptr && &whole == last) together->gradients.begin();
    loss.backward();
  }
  if (together != nullptr && last != nullptr) {
    together->gradients.finish();
    dist::sum_in_order(together->processes.world(), {&outcome.loss, 1});
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
    dist::sum_in_order(processes->world(), numbers);
    sum = numbers[0];
    targets = static_cast<std::int64_t>(numbers[1]);
  }
  return targets == 0 ? 0 : sum / static_cast<double>(targets);
}

}  // namespace memlayers::train

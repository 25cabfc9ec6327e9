// SPDX-License-Identifier: Apache-2.0
#include "memlayers/trainer.h"

#include <cmath>

#include "io/run_folder.h"
#include "memlayers/error.h"
#include "nn/free_memory.h"
#include "train/schedule.h"
#include "train/trainer_run.h"
#include "train/training_step.h"

namespace memlayers {

TrainResult Trainer::Run::train() {
  prepare();
  std::unique_ptr<io::Lock> held;  // until this returns or throws
  TrainResult result;
  result.already_done = state.step >= setup.total_steps;
  processes->together([&] {
    if (!is_first()) return;
    take_lock();
    held = std::move(lock);
    if (callbacks.setup) callbacks.setup(setup);
    open_run_folder(result.already_done);
  });
  if (result.already_done) {
    notice(saved + " has all of the " + std::to_string(setup.total_steps) +
           " steps; nothing is left to do");
  } else {
    began = std::chrono::steady_clock::now();
    time_before = state.time_s;
  }

  while (state.step < setup.total_steps && !result.stopped) {
    StepMetrics metrics = step();
    const bool last = state.step == setup.total_steps;
    const bool evaluation = data->valid() != nullptr && (last || due(config.train.eval_every));
    if (evaluation) evaluate(metrics);
    if (last || evaluation || due(config.train.log_every)) {
      if (!processes->is_alone()) add_ranks(metrics);
      if (is_first()) log(metrics);
    }
    if (due(config.train.sample_every)) sample();
    result.stopped = !last && stop_requested();
    if (last || result.stopped || due(config.train.save_every)) save();
    if (callbacks.step) callbacks.step(metrics, setup.total_steps);
  }
  if (state.step == setup.total_steps && state.bad_in_a_row > 0 && !result.already_done) {
    throw Error("step " + std::to_string(state.step) +
                ": loss or gradient was not finite in the last " +
                std::to_string(state.bad_in_a_row) +
                " steps; these steps changed nothing, and the weights before them are in " + saved);
  }
  result.step = state.step;
  result.checkpoint = saved;
  result.loss = state.loss;
  result.eval_loss = state.eval_loss;
  return result;
}

StepMetrics Trainer::Run::step() {
  const TrainStepConfig& t = config.train;
  const double begin = seconds();
  processes->world().set_step(state.step + 1);
  batches.clear();
  for (std::int64_t i = 0; i < t.accumulate; ++i) batches.push_back(data->batches().next());
  const auto factor = [&](Schedule schedule) {
    return train::schedule_factor(schedule, state.step, setup.total_steps, t.warmup,
                                  t.min_lr_ratio);
  };
  const train::StepRates rates{.lr = t.lr * factor(t.schedule),
                               .value_lr = t.value_lr * factor(t.value_schedule),
                               .clip = t.clip,
                               .value_clip = t.value_clip,
                               .balance = t.balance};
  const train::StepOutcome outcome = nn::with_memory_for("[train] batch_tokens", [&] {
    return train::train_step(parts.model, *dense, rows.get(), batches, rates,
                             {*processes, *gradients});
  });

  ++state.step;
  state.position = data->batches().position();
  state.tokens += outcome.tokens;
  if (!std::isnan(outcome.loss) || outcome.bad) state.loss = outcome.loss;
  if (rows != nullptr) state.row_steps = rows->steps();
  state.bad_in_a_row = outcome.bad ? state.bad_in_a_row + 1 : 0;
  if (outcome.bad) ++state.bad_steps;
  interval_tokens += outcome.tokens;
  state.time_s = seconds();
  interval_s += state.time_s - begin;

  StepMetrics metrics{.step = state.step,
                      .loss = outcome.loss,
                      .lr = rates.lr,
                      .value_lr = rows != nullptr ? rates.value_lr : 0,
                      .epoch = data->epoch(),
                      .tokens = state.tokens,
                      .tokens_per_s = static_cast<double>(interval_tokens) / interval_s,
                      .time_s = state.time_s,
                      .grad_norm = outcome.grad_norm,
                      .value_grad_norm = outcome.value_grad_norm,
                      .touched_rows = outcome.touched_rows,
                      .bad_steps = state.bad_steps};
  if (state.bad_in_a_row >= t.max_bad_steps) {
    if (is_first()) log(metrics);
    throw Error("step " + std::to_string(state.step) + ": loss or gradient was not finite in " +
                std::to_string(state.bad_in_a_row) +
                " steps in a row (train.max_bad_steps); these steps changed nothing, and " +
                last_checkpoint());
  }
  return metrics;
}

Trainer::Trainer(TrainConfig config, TrainCallbacks callbacks, io::FileSystem* files)
    : run_(std::make_unique<Run>(std::move(config), std::move(callbacks),
                                 files != nullptr ? *files : io::posix())) {}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;

const TrainSetup& Trainer::prepare() {
  run_->prepare();
  return run_->setup;
}
TrainResult Trainer::run() { return run_->train(); }
Llama& Trainer::model() { return run_->parts.model; }
const Tokenizer& Trainer::tokenizer() const { return *run_->parts.tokenizer; }

}  // namespace memlayers

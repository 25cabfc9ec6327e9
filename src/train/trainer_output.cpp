// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "dist/collectives.h"
#include "io/folder.h"
#include "io/run_folder.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"
#include "train/report.h"
#include "train/trainer_run.h"
#include "train/training_step.h"

namespace memlayers {
namespace {

constexpr std::int64_t kSampleTokens = 48;

// Rows and the optimizer's state of them that this process holds.
std::int64_t bytes_held(const MemoryPool& pool, RowOptimizer& rows) {
  std::size_t bytes = pool->values.nbytes();
  const RowState& state = rows.state();
  for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
    if (table.defined()) bytes += table.nbytes();
  }
  return static_cast<std::int64_t>(bytes);
}

}  // namespace

void Trainer::Run::open_run_folder(bool is_done) {
  io::make_folders(files, config.out);
  io::remove_unfinished_checkpoints(files, config.out);
  for (const std::string& path : damaged) {
    notice(path + " is damaged: now " + io::set_aside(files, path));
  }
  if (is_done) return;
  run_log = std::make_unique<train::RunLog>(files, config.out, state.step);
  events = std::make_unique<train::EventFile>(files, io::join(config.out, "tensorboard"),
                                              state.step, wall_time());
}

void Trainer::Run::log(StepMetrics metrics) {
  run_log->add(metrics);
  std::vector<std::pair<std::string, double>> scalars{
      {"train/loss", metrics.loss},
      {"train/lr", metrics.lr},
      {"train/grad_norm", metrics.grad_norm},
      {"train/tokens_per_s", metrics.tokens_per_s},
      {"train/tokens", static_cast<double>(metrics.tokens)},
      {"train/epoch", metrics.epoch},
      {"train/bad_steps", static_cast<double>(metrics.bad_steps)}};
  if (rows != nullptr) {
    scalars.emplace_back("pool/value_lr", metrics.value_lr);
    scalars.emplace_back("pool/grad_norm", metrics.value_grad_norm);
    scalars.emplace_back("pool/touched_rows", static_cast<double>(metrics.touched_rows));
  }
  if (metrics.eval_loss) scalars.emplace_back("eval/loss", *metrics.eval_loss);
  if (!metrics.waited_s.empty()) {
    scalars.emplace_back("parallel/most_waited_s", *std::ranges::max_element(metrics.waited_s));
  }
  events->add(metrics.step, wall_time(), scalars);
  interval_tokens = 0;
  interval_s = 0;
  if (callbacks.logged) callbacks.logged(metrics);
}

// All processes call it together.
void Trainer::Run::add_ranks(StepMetrics& metrics) {
  struct Own {
    std::int64_t bytes_sent, pool_bytes;
    double waited_s;
  };
  const Traffic now = processes->world().traffic();
  const Own own{.bytes_sent = now.bytes_sent - logged_traffic.bytes_sent,
                .pool_bytes = rows == nullptr ? 0 : bytes_held(parts.model->pool(), *rows),
                .waited_s = now.waited_s - logged_traffic.waited_s};
  logged_traffic = now;
  for (const Message& message :
       dist::all_gather(processes->world(), std::as_bytes(std::span(&own, 1)))) {
    Own one;
    std::memcpy(&one, message.data.get(), sizeof one);
    metrics.bytes_sent.push_back(one.bytes_sent);
    metrics.waited_s.push_back(one.waited_s);
    metrics.pool_bytes.push_back(one.pool_bytes);
  }
}

void Trainer::Run::evaluate(StepMetrics& metrics) {
  const double loss = train::validation_loss(parts.model, *data->valid_batches(), *processes);
  metrics.eval_loss = state.eval_loss = loss;
  if (!state.best_eval_loss || loss < *state.best_eval_loss) state.best_eval_loss = loss;
}

void Trainer::Run::sample() {
  if (config.train.sample_prompts.empty()) return;
  parts.model->eval();
  GenerateOptions options;
  options.max_tokens = kSampleTokens;
  const std::vector<Generation> generations =
      Generator(parts.model, parts.tokenizer).generate(config.train.sample_prompts, options);
  parts.model->train();
  if (!is_first()) return;  // all say the same, for all read the pool together
  for (std::size_t i = 0; i < generations.size(); ++i) {
    const TrainSample sample{
        .step = state.step, .prompt = config.train.sample_prompts[i], .text = generations[i].text};
    run_log->add(sample);
    if (callbacks.sample) callbacks.sample(sample);
  }
}

void Trainer::Run::save() {
  const std::string path = train::checkpoint_path(config.out, state.step);
  if (is_first() && files.exists(path) && !io::is_complete(files, path)) {
    // Without a manifest it is what a crash while removing an old checkpoint leaves. What else it
    // may be was not made here, or not left so.
    if (files.is_link(path) || files.exists(io::join(path, "MANIFEST.json"))) {
      notice(path + " is damaged: now " + io::set_aside(files, path));
    } else {
      io::remove_all(files, path);
    }
  }
  state.time_s = seconds();
  try {
    train::save_checkpoint(files, path, config, parts, state, processes.get());
  } catch (const io::NotFinite& error) {
    throw Error("step " + std::to_string(state.step) + " is not saved: " + error.what() + "; " +
                last_checkpoint());
  }
  saved = path;
  report();
  remove_old_checkpoints();
  notice("saved " + path);
}

// All processes read the newest again before the first of them removes one.
void Trainer::Run::remove_old_checkpoints() {
  const auto count = [&] {
    return static_cast<std::int64_t>(io::find_own_checkpoints(files, config.out).size());
  };
  const bool is_due = is_first() && count() > config.train.keep;
  if (!processes->any(is_due)) return;
  const train::LongWait long_wait(*processes);
  const std::string damage = train::damage_of(files, saved, processes.get());
  if (!damage.empty()) throw Error(damage);
  if (is_first()) io::remove_old_checkpoints(files, config.out, config.train.keep);
}

void Trainer::Run::report() {
  const at::Tensor usage =
      rows == nullptr ? at::Tensor() : train::whole_usage(parts, processes.get());
  if (!is_first()) return;
  train::ReportData report{.title = config.out,
                           .config_toml = to_toml(config),
                           .setup = setup,
                           .step = state.step,
                           .metrics = run_log->metrics(),
                           .samples = run_log->samples(),
                           .usage = {},
                           .n_keys = 0};
  if (rows != nullptr) {
    report.usage = usage;
    report.n_keys = parts.model->pool()->options().n_keys;
  }
  io::write_atomic(files, io::join(config.out, "report.html"), train::make_report(report));
}

}  // namespace memlayers

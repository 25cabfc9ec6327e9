// SPDX-License-Identifier: Apache-2.0
#include "memlayers/trainer.h"

#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <chrono>
#include <cmath>

#include "io/folder.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"
#include "train/event_file.h"
#include "train/metrics.h"
#include "train/report.h"
#include "train/resume.h"
#include "train/run_checkpoint.h"
#include "train/schedule.h"
#include "train/training_data.h"
#include "train/training_step.h"

namespace memlayers {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::int64_t kSampleTokens = 48;

}  // namespace

struct Trainer::Run {
  Run(TrainConfig the_config, TrainCallbacks the_callbacks, io::FileSystem& the_files)
      : config(std::move(the_config)), callbacks(std::move(the_callbacks)), files(the_files) {
    config.validate();
  }

  void prepare();
  TrainResult train();

  void make_model(const std::optional<train::ResumePoint>& resume);
  void make_optimizers(const std::optional<train::ResumePoint>& resume);
  void describe();
  void check_sample_prompts() const;
  StepMetrics step();
  void log(StepMetrics metrics);
  void evaluate(StepMetrics& metrics);
  void sample();
  void save();
  void report();
  bool due(std::int64_t every) const { return every > 0 && state.step % every == 0; }
  bool stop_requested() const { return callbacks.stop != nullptr && *callbacks.stop; }
  void notice(const std::string& text) const {
    if (callbacks.notice) callbacks.notice(text);
  }

  TrainConfig config;
  TrainCallbacks callbacks;
  io::FileSystem& files;

  bool prepared = false;
  TrainSetup setup;
  std::unique_ptr<train::TrainingData> data;
  std::unique_ptr<DenseAdamW> dense;
  std::unique_ptr<RowAdamW> rows;
  train::RunParts parts;
  train::RunState state;
  std::string saved;  // the newest checkpoint, "" before the first

  std::unique_ptr<train::RunLog> run_log;
  std::unique_ptr<train::EventFile> events;
  Clock::time_point began;
  double time_before = 0;            // of earlier runs, seconds
  std::int64_t interval_tokens = 0;  // since the last logged step
  double interval_s = 0;
  std::vector<text::Batch> batches;
};

void Trainer::Run::prepare() {
  if (prepared) return;
  // Torch's own default knows OMP_NUM_THREADS and physical cores; an earlier run may have changed
  // it.
  static const int default_threads = at::get_num_threads();
  at::set_num_threads(config.train.threads > 0 ? static_cast<int>(config.train.threads)
                                               : default_threads);
  torch::manual_seed(static_cast<std::uint64_t>(config.train.seed));

  const std::optional<train::ResumePoint> resume = train::find_resume_point(files, config);
  std::optional<std::string> checkpoint;
  if (resume) {
    checkpoint = resume->folder;
    train::check_same_model(config, resume->folder);
  }
  TrainConfig sources = config;  // what is saved with a checkpoint keeps its "-"
  sources.data = train::spool_standard_input(files, config);
  parts.tokenizer = train::make_tokenizer(files, sources, checkpoint);
  make_model(resume);
  const std::int64_t context = std::min(config.model.context, parts.model->config().context);
  data = std::make_unique<train::TrainingData>(files, sources, *parts.tokenizer, context,
                                               callbacks.tokenizing);
  make_optimizers(resume);
  setup.context = context;
  describe();
  check_sample_prompts();
  prepared = true;
}

void Trainer::Run::make_model(const std::optional<train::ResumePoint>& resume) {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  if (resume) {
    parts.model = load_model(resume->folder);
  } else if (config.init) {
    parts.model = load_model(resolve_model_folder(*config.init));
  } else {
    parts.model = Llama(train::fit_to_tokenizer(config.model, *parts.tokenizer), seed);
  }
  train::fit_to_tokenizer(parts.model->config(), *parts.tokenizer);  // throws where it does not
  parts.model->train();
}

void Trainer::Run::make_optimizers(const std::optional<train::ResumePoint>& resume) {
  const TrainStepConfig& t = config.train;
  dense = std::make_unique<DenseAdamW>(
      parts.model->dense_parameters(),
      DenseAdamW::Options{
          .beta1 = t.beta1, .beta2 = t.beta2, .eps = t.eps, .weight_decay = t.weight_decay});
  parts.dense = dense.get();
  if (!parts.model->pool().is_empty()) {
    rows = std::make_unique<RowAdamW>(
        parts.model->pool(), RowAdamW::Options{.lr = t.value_lr,
                                               .beta1 = t.value_beta1,
                                               .beta2 = t.value_beta2,
                                               .eps = t.eps,
                                               .weight_decay = t.value_weight_decay,
                                               .kind = t.value_optimizer,
                                               .master_rows = t.master_rows,
                                               .seed = static_cast<std::uint64_t>(t.seed)});
    parts.rows = rows.get();
  }
  state.data = data->order();
  if (!resume) return;

  train::load_optimizers(files, resume->folder, parts);
  const std::string order = state.data;
  state = resume->state;
  saved = resume->folder;
  if (rows != nullptr) rows->set_steps(state.row_steps);
  if (state.data != order) {
    notice("the data or how they are cut changed since " + resume->folder + " (" + state.data +
           "; now " + order + "): going on from the beginning of a pass");
    state.data = order;
    state.position.batch = 0;
  }
  data->batches().seek(state.position);
  notice("resumed from " + resume->folder + " at step " + std::to_string(state.step));
}

void Trainer::Run::describe() {
  const ModelConfig& model = parts.model->config();
  setup.model = model;
  for (const auto& [name, parameter] : parts.model->dense_parameters()) {
    auto& count = name.find(".memory.") == std::string::npos ? setup.dense_parameters
                                                             : setup.memory_parameters;
    count += parameter.numel();
  }
  if (rows != nullptr) {
    setup.pool_rows = parts.model->pool()->slots();
    setup.pool_width = parts.model->pool()->width();
  }
  setup.flops_per_token = count_flops(model, setup.context);
  setup.train_documents = data->train().documents();
  setup.train_tokens = data->train().tokens();
  if (data->valid() != nullptr) {
    setup.valid_documents = data->valid()->documents();
    setup.valid_tokens = data->valid()->tokens();
  }
  setup.batches_per_epoch = data->batches_in_epoch(state.position.epoch);
  setup.first_step = state.step;
  setup.total_steps = data->total_steps();
  setup.threads = at::get_num_threads();
}

// Now, not at the first sample some hours later.
void Trainer::Run::check_sample_prompts() const {
  if (config.train.sample_every == 0) return;
  for (const std::string& prompt : config.train.sample_prompts) {
    const auto tokens = static_cast<std::int64_t>(parts.tokenizer->encode(prompt).size()) + 1;
    if (tokens >= parts.model->config().context) {
      throw Error("train.sample_prompts: \"" + prompt + "\" has " + std::to_string(tokens) +
                  " tokens, wanted fewer than the context of " +
                  std::to_string(parts.model->config().context));
    }
  }
}

TrainResult Trainer::Run::train() {
  prepare();
  TrainResult result;
  if (callbacks.setup) callbacks.setup(setup);
  io::make_folders(files, config.out);
  train::remove_unfinished_checkpoints(files, config.out);
  if (state.step >= setup.total_steps) {
    notice(saved + " has all of the " + std::to_string(setup.total_steps) +
           " steps; nothing is left to do");
    result.already_done = true;
  } else {
    run_log = std::make_unique<train::RunLog>(files, config.out, state.step);
    events = std::make_unique<train::EventFile>(files, io::join(config.out, "tensorboard"),
                                                state.step, wall_time());
    began = Clock::now();
    time_before = state.time_s;
  }

  while (state.step < setup.total_steps && !result.stopped) {
    StepMetrics metrics = step();
    const bool last = state.step == setup.total_steps;
    const bool evaluation = data->valid() != nullptr && (last || due(config.train.eval_every));
    if (evaluation) evaluate(metrics);
    if (last || evaluation || due(config.train.log_every)) log(metrics);
    if (due(config.train.sample_every)) sample();
    result.stopped = !last && stop_requested();
    if (last || result.stopped || due(config.train.save_every)) save();
    if (callbacks.step) callbacks.step(metrics, setup.total_steps);
  }
  result.step = state.step;
  result.checkpoint = saved;
  result.loss = state.loss;
  result.eval_loss = state.eval_loss;
  return result;
}

StepMetrics Trainer::Run::step() {
  const TrainStepConfig& t = config.train;
  const Clock::time_point begin = Clock::now();
  batches.clear();
  for (std::int64_t i = 0; i < t.accumulate; ++i) batches.push_back(data->batches().next());
  const auto factor = [&](Schedule schedule) {
    return train::schedule_factor(schedule, state.step, setup.total_steps, t.warmup,
                                  t.min_lr_ratio);
  };
  const train::StepRates rates{.lr = t.lr * factor(t.schedule),
                               .value_lr = t.value_lr * factor(t.value_schedule),
                               .clip = t.clip,
                               .value_clip = t.value_clip};
  const train::StepOutcome outcome =
      train::train_step(parts.model, *dense, rows.get(), batches, rates);

  ++state.step;
  state.position = data->batches().position();
  state.tokens += outcome.tokens;
  state.loss = outcome.loss;
  if (rows != nullptr) state.row_steps = rows->steps();
  state.bad_in_a_row = outcome.bad ? state.bad_in_a_row + 1 : 0;
  if (outcome.bad) ++state.bad_steps;
  interval_tokens += outcome.tokens;
  interval_s += seconds_since(begin);
  state.time_s = time_before + seconds_since(began);

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
    log(metrics);
    throw Error(
        "step " + std::to_string(state.step) + ": loss or gradient was not finite in " +
        std::to_string(state.bad_in_a_row) +
        " steps in a row (train.max_bad_steps); these steps changed nothing, and " +
        (saved.empty() ? "no checkpoint was written yet" : "the last checkpoint is " + saved));
  }
  return metrics;
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
  events->add(metrics.step, wall_time(), scalars);
  interval_tokens = 0;
  interval_s = 0;
  if (callbacks.logged) callbacks.logged(metrics);
}

void Trainer::Run::evaluate(StepMetrics& metrics) {
  const double loss = train::validation_loss(parts.model, *data->valid_batches());
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
  for (std::size_t i = 0; i < generations.size(); ++i) {
    const TrainSample sample{
        .step = state.step, .prompt = config.train.sample_prompts[i], .text = generations[i].text};
    run_log->add(sample);
    if (callbacks.sample) callbacks.sample(sample);
  }
}

void Trainer::Run::save() {
  const std::string path = train::checkpoint_path(config.out, state.step);
  // A folder without a whole manifest is what a crash while removing an old checkpoint leaves.
  if (files.exists(path) && !io::is_complete(files, path)) io::remove_all(files, path);
  state.time_s = time_before + seconds_since(began);
  train::save_checkpoint(files, path, config, parts, state);
  saved = path;
  train::remove_old_checkpoints(files, config.out, config.train.keep);
  report();
  notice("saved " + path);
}

void Trainer::Run::report() {
  train::ReportData report{.title = config.out,
                           .config_toml = to_toml(config),
                           .setup = setup,
                           .step = state.step,
                           .metrics = run_log->metrics(),
                           .samples = run_log->samples(),
                           .usage = {},
                           .n_keys = 0};
  if (rows != nullptr) {
    report.usage = parts.model->pool()->usage();
    report.n_keys = parts.model->pool()->options().n_keys;
  }
  io::write_atomic(files, io::join(config.out, "report.html"), train::make_report(report));
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

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/llama.h"
#include "memlayers/tokenizer.h"

namespace memlayers {

namespace io {
class FileSystem;
}

// One line of metrics.jsonl. Steps count from 1; `tokens` and `time_s` go on over a resume.
struct StepMetrics {
  std::int64_t step = 0;
  // Of this step: mean over its target tokens; NaN where it was not finite or had none of them.
  double loss = 0;
  double lr = 0, value_lr = 0;
  double epoch = 0;               // passes over the training data so far
  std::int64_t tokens = 0;        // read so far, padding not counted
  double tokens_per_s = 0;        // since the last logged step, evaluation and saving not counted
  double time_s = 0;              // since the run began, evaluation and saving included
  double grad_norm = 0;           // dense, before clipping
  double value_grad_norm = 0;     // pool, before clipping
  std::int64_t touched_rows = 0;  // pool rows that this step changed
  std::int64_t bad_steps = 0;     // steps skipped so far because loss or gradient was not finite
  std::optional<double> eval_loss = {};
  // By rank, of several processes: sent and waited since the line before; rows and their
  // optimizer's state that each holds.
  std::vector<std::int64_t> bytes_sent = {}, pool_bytes = {};
  std::vector<double> waited_s = {};
};

// A greedy continuation of one of the configured prompts.
struct TrainSample {
  std::int64_t step = 0;
  std::string prompt, text;
};

// What is known before the first step.
struct TrainSetup {
  ModelConfig model;
  std::int64_t dense_parameters = 0,
               memory_parameters = 0;  // memory: keys, projections; not the pool
  std::int64_t pool_rows = 0, pool_width = 0;
  Flops flops_per_token;  // forward, at the training context
  std::int64_t train_documents = 0, train_tokens = 0, valid_documents = 0, valid_tokens = 0;
  std::int64_t context = 0, batches_per_epoch = 0;
  std::int64_t first_step = 0, total_steps = 0;  // first_step steps were done before
  int threads = 0;
  int processes = 1;  // of the run, each with `threads`
};

struct TrainResult {
  std::int64_t step = 0;                  // steps done, all runs together
  bool stopped = false;                   // by the stop request
  bool already_done = false;              // nothing was left to do
  std::string checkpoint;                 // the newest one
  std::optional<double> loss, eval_loss;  // of the last step; of the last evaluation
};

// All optional; called from the thread that calls run().
struct TrainCallbacks {
  std::function<void(const std::string&)> notice;  // one sentence: resumed, saved, ...
  std::function<void(std::int64_t documents, std::int64_t tokens)> tokenizing;
  std::function<void(const TrainSetup&)> setup;
  std::function<void(const StepMetrics&, std::int64_t total_steps)> step;  // every step
  std::function<void(const StepMetrics&)> logged;  // what goes to metrics.jsonl
  std::function<void(const TrainSample&)> sample;
  const std::atomic<bool>* stop = nullptr;  // true: finish the step, save, return
};

// A training run: configuration in; checkpoints, metrics, samples and a report out, all under
// `config.out` (docs/training.md). With the same configuration, seed, number of threads and machine
// the result has the same bits, also when the run was stopped and resumed. run() sets torch's
// number of threads and its global seed for the process.
class Trainer {
 public:
  // Throws Error where the configuration is impossible.
  explicit Trainer(TrainConfig config, TrainCallbacks callbacks = {},
                   io::FileSystem* files = nullptr);
  ~Trainer();
  Trainer(Trainer&&) noexcept;

  // Reads data, makes or loads tokenizer and model; what run() does first. Writes nothing but the
  // token cache. Throws Error naming file or field.
  const TrainSetup& prepare();
  // Trains to the end or to a stop request. Throws Error when something outside fails, after
  // max_bad_steps steps in a row that were not finite, where the run ends with such steps, and
  // where weights, rows or optimizer states to save are not finite; then the last checkpoint is the
  // state to go on from.
  TrainResult run();

  Llama& model();  // after prepare()
  const Tokenizer& tokenizer() const;

 private:
  struct Run;
  std::unique_ptr<Run> run_;
};

}  // namespace memlayers

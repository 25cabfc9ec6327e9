// SPDX-License-Identifier: Apache-2.0
// The state of a run, shared by trainer.cpp (the loop), trainer_prepare.cpp (before the first step)
// and trainer_output.cpp (what a run writes).
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/optimizer.h"
#include "memlayers/trainer.h"
#include "train/event_file.h"
#include "train/gradient_sum.h"
#include "train/metrics.h"
#include "train/processes.h"
#include "train/resume.h"
#include "train/run_checkpoint.h"
#include "train/training_data.h"

namespace memlayers {

struct Trainer::Run {
  Run(TrainConfig the_config, TrainCallbacks the_callbacks, io::FileSystem& the_files)
      : config(std::move(the_config)), callbacks(std::move(the_callbacks)), files(the_files) {
    config.validate();
  }

  void prepare();
  TrainResult train();

  void take_lock();
  void open_run_folder(bool is_done);  // to write to it
  void prepare_tokenizer(TrainConfig& sources, const std::optional<std::string>& checkpoint);
  void make_model(const std::optional<train::ResumePoint>& resume);
  void make_optimizers(const std::optional<train::ResumePoint>& resume);
  void describe();
  void check_sample_prompts() const;
  StepMetrics step();
  void log(StepMetrics metrics);
  void add_ranks(StepMetrics& metrics);
  void evaluate(StepMetrics& metrics);
  void sample();
  void save();
  void remove_old_checkpoints();
  void report();
  double seconds() const {  // since the run began, all parts of it
    return time_before +
           std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  static double wall_time() {  // seconds since 1970
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
  bool due(std::int64_t every) const { return every > 0 && state.step % every == 0; }
  // By the user, in one of the processes.
  bool stop_requested() const {
    const bool here = callbacks.stop != nullptr && *callbacks.stop;
    return processes->is_alone() ? here : processes->any(here);
  }
  bool is_first() const { return processes->is_first(); }
  std::string last_checkpoint() const {  // for an error
    return saved.empty() ? "no checkpoint was written yet" : "the last checkpoint is " + saved;
  }
  void notice(const std::string& text) const {
    if (callbacks.notice) callbacks.notice(text);
  }

  TrainConfig config;
  TrainCallbacks callbacks;
  io::FileSystem& files;

  bool prepared = false;
  std::unique_ptr<io::Lock> lock;  // of config.out, which the first process holds for all
  std::unique_ptr<train::Processes> processes;
  std::unique_ptr<train::GradientSum> gradients;
  TrainSetup setup;
  std::unique_ptr<train::TrainingData> data;
  std::unique_ptr<DenseAdamW> dense;
  std::unique_ptr<RowOptimizer> rows;
  train::RunParts parts;
  train::RunState state;
  std::string saved;                 // the newest checkpoint, "" before the first
  std::vector<std::string> damaged;  // later ones, in whose place this run writes others

  std::unique_ptr<train::RunLog> run_log;
  std::unique_ptr<train::EventFile> events;
  std::chrono::steady_clock::time_point began;
  double time_before = 0;            // of earlier runs, seconds
  std::int64_t interval_tokens = 0;  // since the last logged step
  double interval_s = 0;
  Traffic logged_traffic;  // of this process, up to the last logged step
  std::vector<text::Batch> batches;
};

}  // namespace memlayers

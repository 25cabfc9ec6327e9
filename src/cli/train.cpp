// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/shown.h"
#include "memlayers/parallel.h"
#include "memlayers/trainer.h"
#include "train/metrics.h"

namespace memlayers::cli {
namespace {

constexpr std::size_t kMostOfLine = 4000;  // characters that a run may want to tell at once

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string resume;
  bool json = false, help_config = false, dry_run = false;
};

// The first Ctrl-C asks the trainer to save and leave; the second finds the default action again
// and ends the process at once (a half-written checkpoint has a temporary name, removed by the next
// run).
std::atomic<bool> stop_requested = false;
std::atomic<int> stop_signal = 0;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void request_stop(int signal) {
  stop_requested = true;
  stop_signal = signal;
}

void stop_on_signals() {
  struct sigaction action = {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

std::string loss_text(double loss) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4f", loss);
  return text;
}

void print_setup(const TrainSetup& s) {
  const auto line = [](const char* name, const std::string& text) {
    std::fprintf(stderr, "%-11s %s\n", name, text.c_str());
  };
  std::string parameters = short_count(static_cast<double>(s.dense_parameters)) + " dense";
  if (s.pool_rows > 0) {
    parameters += " + " + short_count(static_cast<double>(s.memory_parameters)) +
                  " of memory layers + " +
                  short_count(static_cast<double>(s.pool_rows * s.pool_width)) + " in a pool of " +
                  std::to_string(s.pool_rows) + " rows of " + std::to_string(s.pool_width);
  }
  line("parameters", parameters);
  std::string flops = short_count(s.flops_per_token.total()) + " a token forward (attention " +
                      short_count(s.flops_per_token.attention) + ", feed-forward " +
                      short_count(s.flops_per_token.feed_forward);
  if (s.pool_rows > 0) flops += ", memory " + short_count(s.flops_per_token.memory);
  line("FLOPs",
       flops + ", logits " + short_count(s.flops_per_token.logits) + "), 3 times that in training");
  std::string data = std::to_string(s.train_documents) + " documents, " +
                     short_count(static_cast<double>(s.train_tokens)) + " tokens, " +
                     std::to_string(s.batches_per_epoch) +
                     " batches a pass, sequences of at most " + std::to_string(s.context);
  if (s.valid_documents > 0) {
    data += "; validation " + std::to_string(s.valid_documents) + " documents, " +
            short_count(static_cast<double>(s.valid_tokens)) + " tokens";
  }
  line("data", data);
  const std::string threads = std::to_string(s.threads) + (s.threads == 1 ? " thread" : " threads");
  line("run", std::to_string(s.total_steps) + " steps" +
                  (s.first_step > 0 ? ", " + std::to_string(s.first_step) + " of them done" : "") +
                  ", " + (s.processes > 1 ? std::to_string(s.processes) + " processes of " : "") +
                  threads);
}

nlohmann::ordered_json json_of(const TrainSetup& s) {
  return {{"parameters",
           {{"dense", s.dense_parameters},
            {"memory", s.memory_parameters},
            {"pool", s.pool_rows * s.pool_width}}},
          {"flops_per_token",
           {{"context", s.context},
            {"attention", s.flops_per_token.attention},
            {"feed_forward", s.flops_per_token.feed_forward},
            {"memory", s.flops_per_token.memory},
            {"logits", s.flops_per_token.logits},
            {"total", s.flops_per_token.total()}}},
          {"documents", s.train_documents},
          {"tokens", s.train_tokens},
          {"batches_a_pass", s.batches_per_epoch},
          {"steps", s.total_steps},
          {"steps_done", s.first_step}};
}

// What a person sees of a run. The bar exists from the first step to the last.
class Display {
 public:
  explicit Display(bool json) : json_(json) {}

  TrainCallbacks callbacks() {
    TrainCallbacks calls;
    calls.stop = &stop_requested;
    calls.notice = [this](const std::string& text) { print(io::shown(text, kMostOfLine)); };
    calls.tokenizing = [this](std::int64_t documents, std::int64_t tokens) {
      print("tokenizing: " + std::to_string(documents) + " documents, " +
            short_count(static_cast<double>(tokens)) + " tokens");
    };
    calls.setup = [this](const TrainSetup& setup) {
      print_setup(setup);
      if (setup.first_step >= setup.total_steps) return;
      bar_ = std::make_unique<ProgressBar>("train", setup.total_steps);
      bar_->update(setup.first_step);
    };
    calls.step = [this](const StepMetrics& m, std::int64_t) {
      std::string note =
          "loss " + loss_text(m.loss) + "  " + short_count(m.tokens_per_s) + " tok/s";
      if (m.bad_steps > 0) note += "  " + std::to_string(m.bad_steps) + " skipped";
      bar_->update(m.step, note);
    };
    calls.logged = [this](const StepMetrics& m) {
      if (json_) {
        std::cout << train::to_json(m) << std::endl;
      }
      if (m.eval_loss) {
        print("step " + std::to_string(m.step) + ": validation loss " + loss_text(*m.eval_loss));
      }
    };
    calls.sample = [this](const TrainSample& s) {
      print("step " + std::to_string(s.step) + ": " + io::shown(s.prompt, kMostOfLine) + " > " +
            io::shown(s.text, kMostOfLine));
    };
    return calls;
  }
  void finish() {
    if (bar_) bar_->finish();
    bar_.reset();
  }

 private:
  void print(const std::string& text) {
    if (bar_) {
      bar_->print(text);
    } else {
      std::fprintf(stderr, "%s\n", text.c_str());
    }
  }
  bool json_;
  std::unique_ptr<ProgressBar> bar_;
};

TrainConfig read_config(const TrainArguments& options) {
  TrainConfig config = read_train_config("train", options.config, options.overrides);
  if (!options.resume.empty()) config.train.resume = options.resume;
  return config;
}

int run(const TrainArguments& options) {
  if (options.help_config) {
    std::cout << describe_train_config();
    return 0;
  }
  work_without_readers();
  Display display(options.json);
  const TrainConfig config = read_config(options);
  Trainer trainer(config, display.callbacks());
  const bool is_first = world()->rank() == 0;  // it talks to the user
  if (options.dry_run) {
    const TrainSetup& setup = trainer.prepare();
    if (is_first) print_setup(setup);
    if (is_first && options.json) print_json(json_of(setup));
    return 0;
  }
  trainer.prepare();
  stop_on_signals();  // from here on there is something to save
  const TrainResult result = trainer.run();
  display.finish();
  if (!is_first) return result.stopped ? 128 + stop_signal : 0;
  if (result.stopped) {
    std::fprintf(stderr, "stopped after step %lld; the same command goes on from there\n",
                 static_cast<long long>(result.step));
  } else if (!result.already_done && result.loss) {
    std::fprintf(
        stderr, "done: loss %.4f%s\n", *result.loss,
        result.eval_loss ? (", validation loss " + loss_text(*result.eval_loss)).c_str() : "");
  }
  std::fprintf(stderr, "model: %s   report: %s/report.html\n", result.checkpoint.c_str(),
               config.out.c_str());
  return result.stopped ? 128 + stop_signal : 0;
}

}  // namespace

TrainConfig read_train_config(const std::string& verb, std::string path,
                              const std::vector<std::string>& words) {
  // "--set a=1 CONFIG.toml": the option takes all that follows it.
  std::vector<std::string> overrides;
  for (const std::string& text : words) {
    if (text.find('=') != std::string::npos) {
      overrides.push_back(text);
    } else if (path.empty()) {
      path = text;
    } else {
      throw UsageError("--set: expected key=value, got " + io::quote(text));
    }
  }
  if (path.empty()) throw UsageError(verb + ": expected a configuration file, CONFIG.toml");
  return load_train_config(path, overrides);
}

Command train_command() {
  return {.name = "train",
          .summary = "Train a model on text or facts",
          .example =
              "memlayers train CONFIG.toml --set model.dim=128 train.steps=2000\n"
              "  memlayers train --help-config      every key of CONFIG\n\n"
              "Ctrl-C saves and leaves; the same command goes on from the newest checkpoint.",
          .add = [](CLI::App& app) -> std::function<int()> {
            const auto options = std::make_shared<TrainArguments>();
            app.add_option("CONFIG", options->config, "TOML file that describes the run");
            app.add_option("--set", options->overrides, "key=value ..., over what CONFIG says");
            app.add_option("--resume", options->resume,
                           "auto (newest checkpoint of the run), never, or a checkpoint folder");
            app.add_flag(
                "--json", options->json,
                "print one JSON object a logged step on stdout; with --dry-run, one of the "
                "sizes");
            app.add_flag("--dry-run", options->dry_run,
                         "read configuration and data, print sizes, train nothing");
            app.add_flag("--help-config", options->help_config, "print every key of CONFIG");
            return [options] { return run(*options); };
          }};
}

}  // namespace memlayers::cli

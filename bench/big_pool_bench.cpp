// SPDX-License-Identifier: Apache-2.0
// How big a pool fits: makes a model of one memory layer, trains some steps, saves it, loads it
// again, and says how long each took and how much memory the process held, beside what the rows and
// their state are. Not a Google Benchmark: one run is the measurement.
//
//   big_pool_bench                                          # 0.27 billion parameters, in RAM
//   big_pool_bench --n-keys 2828 --width 1024               # 8.19 billion: 16.4 GB
//   big_pool_bench --n-keys 2828 --width 1024 --pool-folder /scratch
#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>

#include "memlayers/llama.h"
#include "memlayers/ops.h"
#include "memlayers/optimizer.h"
#include "memlayers/row_updates.h"

namespace memlayers {
namespace {

struct Options {
  std::int64_t n_keys = 512, width = 1024, steps = 3, tokens = 1024, seed = 0;
  std::string optimizer = "rowwise_adagrad", out;
  std::optional<std::string> pool_folder;
  bool keep = false, load = true;
};

// A line of /proc/self/status, in bytes: VmRSS now, VmHWM at most so far, RssFile of it in files.
double status(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << 5; }  // VmHWM

template <class Act>
void measure(const char* what, double rows_and_state, const Act& act) {
  reset_peak();
  const auto begin = std::chrono::steady_clock::now();
  act();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("%-10s %8.2f s   VmRSS %8.1f MB (in files %8.1f)   VmHWM %8.1f MB", what, seconds,
              status("VmRSS") / 1e6, status("RssFile") / 1e6, status("VmHWM") / 1e6);
  std::printf("   above rows and state: %.1f MB\n", (status("VmHWM") - rows_and_state) / 1e6);
  std::fflush(stdout);
}

const std::map<std::string, PoolOptimizer> kOptimizers = {
    {"sgd", PoolOptimizer::kSgd},
    {"rowwise_adagrad", PoolOptimizer::kRowwiseAdagrad},
    {"adamw", PoolOptimizer::kAdamW}};

// Rows, optimizer state and counts of reads, were all of them used.
double table_bytes(const MemoryPool& pool, RowOptimizer& rows) {
  std::size_t bytes = pool->values.nbytes() + pool->usage().nbytes();
  const RowState& state = rows.state();
  for (const at::Tensor& table : {state.exp_avg, state.exp_avg_sq, state.steps, state.master}) {
    if (table.defined()) bytes += table.nbytes();
  }
  return static_cast<double>(bytes);
}

ModelConfig model_config(const Options& options) {
  ModelConfig config;
  config.dim = options.width;
  config.layers = 1;
  config.heads = 8;
  config.ff_dim = options.width;
  config.vocab_size = 256;
  config.context = 256;
  config.memory = MemoryConfig{.layers = std::vector<std::int64_t>{0},
                               .n_keys = options.n_keys,
                               .row_dtype = RowType::kBFloat16};
  return config;
}

void train(Llama& model, RowOptimizer& rows, DenseAdamW& dense, const Options& options) {
  const std::int64_t context = model->config().context;
  for (std::int64_t step = 0; step < options.steps; ++step) {
    const at::Tensor text =
        torch::randint(256, {options.tokens / context, context + 1}, torch::kLong);
    dense.zero_grad();
    const at::Tensor loss =
        answer_loss(model, model->hidden_states(text.slice(1, 0, context)), text.slice(1, 1));
    loss.backward();
    const auto result = rows.step(1e-3);
    dense.step(3e-4, 1.0);
    std::printf("  step %lld: loss %.4f, %lld rows touched\n", static_cast<long long>(step + 1),
                loss.item<double>(), static_cast<long long>(result.touched_rows));
  }
}

// Takes the pages of a table in a file out of memory.
void make_cold(const at::Tensor& table) {
  void* data = const_cast<void*>(table.const_data_ptr());
  ::msync(data, table.nbytes(), MS_SYNC);
  ::madvise(data, table.nbytes(), MADV_PAGEOUT);
}

// The gather of as many random rows as a step reads, from the disk: by page faults alone, as the
// operator does it, and by the pool, which asks for rows ahead of their use.
void compare_cold_gathers(MemoryPool& pool, std::int64_t tokens) {
  const torch::NoGradGuard no_grad;
  const at::Tensor slots = torch::randint(pool->slots(), {tokens, 128}, torch::kLong);
  const at::Tensor weights = torch::rand({tokens, 128});
  const auto seconds = [&](const auto& act) {
    const auto begin = std::chrono::steady_clock::now();
    act();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  for (int time = 0; time < 3; ++time) {
    make_cold(pool->values);
    const double faults = seconds([&] { gather(pool->values, slots, weights); });
    make_cold(pool->values);
    const double ahead = seconds([&] { pool->gather(slots, weights); });
    const double warm = seconds([&] { pool->gather(slots, weights); });
    std::printf(
        "  %lld cold rows: %.3f s by page faults, %.3f s read ahead (%.1f times); warm %.3f s\n",
        static_cast<long long>(slots.numel()), faults, ahead, faults / ahead, warm);
  }
}

void run(const Options& options) {
  torch::manual_seed(static_cast<std::uint64_t>(options.seed));
  const double before = status("VmRSS");
  const double numbers = static_cast<double>(options.n_keys) * static_cast<double>(options.n_keys) *
                         static_cast<double>(options.width);
  std::printf("pool %lld^2 x %lld bfloat16: %.2f billion parameters\n",
              static_cast<long long>(options.n_keys), static_cast<long long>(options.width),
              numbers / 1e9);
  std::printf("%d threads; %s; optimizer %s; the program alone: %.1f MB\n", at::get_num_threads(),
              options.pool_folder ? ("in " + *options.pool_folder).c_str() : "in RAM",
              options.optimizer.c_str(), before / 1e6);
  double whole = before;
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(options.out) / "big-pool-model";
  {
    Llama model{nullptr};
    measure("construct", numbers * 2 + before, [&] {
      model = Llama(model_config(options), static_cast<std::uint64_t>(options.seed),
                    options.pool_folder);
    });
    RowOptimizer rows(model->pool(), {.kind = kOptimizers.at(options.optimizer)});
    DenseAdamW dense(model->dense_parameters(), {});
    whole += table_bytes(model->pool(), rows);
    std::printf("rows %.1f MB, state and counts of reads %.1f MB\n", numbers * 2 / 1e6,
                (whole - before - numbers * 2) / 1e6);
    if (options.pool_folder) {
      MemoryPool pool = model->pool();
      compare_cold_gathers(pool, options.tokens);
    }
    measure("train", whole, [&] { train(model, rows, dense, options); });
    fs::remove_all(folder);
    fs::create_directories(folder);
    measure("save", whole, [&] { save_model(model, folder.string()); });
  }
  if (options.load) {
    measure("load", numbers * 2 + before,
            [&] { load_model(folder.string(), options.pool_folder); });
  }
  if (!options.keep) fs::remove_all(folder);
}

}  // namespace
}  // namespace memlayers

int main(int argc, char** argv) {
  memlayers::Options options;
  options.out = std::filesystem::temp_directory_path().string();
  CLI::App app("Constructs, trains, saves and loads a model with a big pool");
  app.add_option("--n-keys", options.n_keys, "the pool has n_keys^2 rows")->capture_default_str();
  app.add_option("--width", options.width, "of a row, a multiple of 16")->capture_default_str();
  app.add_option("--steps", options.steps, "of training")->capture_default_str();
  app.add_option("--tokens", options.tokens, "a step, at least 256")->capture_default_str();
  app.add_option("--seed", options.seed)->capture_default_str();
  app.add_option("--optimizer", options.optimizer, "of the rows")
      ->check(CLI::IsMember(memlayers::kOptimizers))
      ->capture_default_str();
  app.add_option("--pool-folder", options.pool_folder, "rows and state in scratch files there");
  app.add_option("--out", options.out, "where the model is saved")->capture_default_str();
  app.add_flag("--keep", options.keep, "do not delete the saved model");
  app.add_flag("!--no-load", options.load, "leave the saved model unread");
  CLI11_PARSE(app, argc, argv);
  try {
    memlayers::run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "big_pool_bench: error: %s\n", error.what());
    return 1;
  }
  return 0;
}

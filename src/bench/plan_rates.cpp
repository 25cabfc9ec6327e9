// SPDX-License-Identifier: Apache-2.0
// The rates of a plan, measured on this machine: models of the same widths, but few layers and a
// small pool.
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/machine.h"
#include "bench/parallel.h"
#include "bench/parts.h"
#include "bench/plan.h"
#include "bench/trainee.h"
#include "memlayers/llama.h"

namespace memlayers::bench {
namespace {

constexpr int kRepeat = 3;

// A decoder without memory: seconds of forward and backward are what its step takes without AdamW.
void measure_dense(const Case& c, Rates& rates) {
  ModelConfig model = c.config.model;
  model.memory.reset();
  model.layers = std::min<std::int64_t>(model.layers, 2);
  Trainee trainee(c, model);
  IndexDraw words(model.vocab_size, {}, kSeed);
  Times step;
  for (int i = -1; i < kRepeat; ++i) {
    const double seconds = trainee.seconds_of_step(draw_batch(words, c.tokens, model.context));
    if (i >= 0) step.add(seconds);
  }
  const auto numbers = static_cast<double>(trainee.dense_parameters());
  // AdamW alone, over as many numbers.
  const at::Tensor weights = torch::zeros({trainee.dense_parameters() / 256 + 1, 256});
  DenseAdamW dense = make_dense_optimizer(c, {{"weights", weights}});
  Times update;
  for (int i = -1; i < kRepeat; ++i) {
    at::Tensor target = weights;
    target.mutable_grad() = torch::ones_like(weights);
    const double seconds = seconds_of([&] {
      dense.gradient_norm();
      dense.step(0);
    });
    if (i >= 0) update.add(seconds);
  }
  rates.dense_update_s = update.best() / numbers;
  const double flops = trainee.flops_a_token(std::min(model.context, c.tokens));
  rates.dense_flops_s = 3 * flops * static_cast<double>(c.tokens) /
                        std::max(0.1 * step.best(), step.best() - update.best());
}

void measure_memory(const Case& wanted, Rates& rates) {
  Case c = wanted;
  MemoryConfig& memory = *c.config.model.memory;
  // What leaves the caches, and a quarter of the memory at most with the optimizer's state.
  const std::int64_t row = 16 * c.config.model.row_width();
  while (memory.n_keys > 64 &&
         memory.slots() * row >
             std::min<std::int64_t>(std::int64_t{1} << 30, available_memory() / 4)) {
    memory.n_keys /= 2;
  }
  memory.knn = std::min(memory.knn, memory.n_keys);
  rates.n_keys = memory.n_keys;
  Stream stream(64 << 20);
  const Figures figures = bench_step(c, stream);
  const auto value = [&](const std::string& name) {
    for (const auto& [key, number] : figures.items()) {
      if (key == name) return number;
    }
    return 0.0;
  };
  rates.memory_token_s =
      1e-3 * (value("forward_ms") + value("backward_ms")) / static_cast<double>(c.tokens);
  rates.row_update_s = 1e-3 * value("update_ms") / std::max(1.0, value("touched_rows"));
}

// Two processes of this machine, with a small model.
void measure_exchange(const TrainConfig& config, const std::string& program, Rates& rates) {
  const ModelConfig& model = config.model;
  const MemoryConfig& memory = *model.memory;
  const auto text = [](std::int64_t number) { return std::to_string(number); };
  const std::vector<std::string> command{
      program,     "bench",
      "parallel",  "--json",
      "--repeat",  "5",
      "--tokens",  "512",
      "--layers",  "4",
      "--dim",     "128",
      "--vocab",   "512",
      "--n-keys",  text(std::min<std::int64_t>(64, memory.n_keys)),
      "--heads",   text(memory.heads),
      "--knn",     text(std::min<std::int64_t>(64, memory.knn)),
      "--k-dim",   "64",
      "--v-dim",   text(std::min<std::int64_t>(1024, model.value_dim())),
      "--threads", text(rates.threads)};
  const auto json = nlohmann::json::parse(output_of(mpirun_here(2, command)));
  const auto number = [&](const char* name) { return json.at(name).get<double>(); };
  constexpr double kProcesses = 2;
  rates.exchange_byte_s = 1e-3 * number("exchange_ms") / number("bytes_sent");
  const double rounds = 2 + 5 * static_cast<double>(json.at("memory_layers").size());
  rates.round_s = 1e-3 * number("wait_ms") / rounds / kProcesses;
}

}  // namespace

Rates measure_rates(const TrainConfig& config, const std::string& program) {
  Case c;
  c.config = config;
  c.repeat = kRepeat;
  c.tokens = std::clamp<std::int64_t>(config.train.batch_tokens, 64, 1024);
  Rates rates;
  rates.threads = at::get_num_threads();
  measure_dense(c, rates);
  if (config.model.memory_layers().empty()) return rates;
  measure_memory(c, rates);
  measure_exchange(config, program, rates);
  return rates;
}

}  // namespace memlayers::bench
